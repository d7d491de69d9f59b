"""The audit command: a dataset with faults in; a summary, findings, sheets and a list of exclusions out."""

import json
import os
import shlex
import shutil
import sys
from functools import partial

import pytest
from PIL import Image

from fer_exp import audit
from fer_exp.data.annotations import read_exclusions


@pytest.fixture
def run_audit(run_main):
    """The audit command: ``run_audit("data.root=DIR")``."""
    return partial(run_main, audit.main)


@pytest.fixture
def faulty(faces, tmp_path):
    """Images with a leak, a contradiction, a constant image and a damaged file."""
    root = tmp_path / "faulty"
    shutil.copytree(faces, root)
    shutil.copy(root / "validation/sad/00000.png", root / "train/sad/leak.png")
    shutil.copy(root / "train/happy/00000.png", root / "train/fear/other.png")
    Image.new("L", (48, 48)).save(root / "train/angry/black.png")
    (root / "train/angry/cut.png").write_bytes((root / "train/angry/00000.png").read_bytes()[:500])
    return root


def excluded(folder):
    return read_exclusions(folder / "exclude.txt")


def test_findings_are_printed_and_written(run_audit, faulty, tmp_path):
    status, printed = run_audit(f"data.root={faulty}", "hydra.run.dir=found", "plots.theme=dark")
    assert status == 0, printed
    findings = json.loads((tmp_path / "found/audit.json").read_text())
    assert findings["root"] == str(faulty)
    assert findings["counts"]["angry"] == {"train": 11, "validation": 5}  # of readable images
    assert [entry["file"] for entry in findings["unreadable"]] == ["train/angry/cut.png"]
    rows = [line.rsplit(maxsplit=2) for line in printed.splitlines()]
    for row, counts in findings["findings"].items():
        assert ([row, *map(str, counts.values())] in rows) == any(counts.values())
    assert findings["findings"]["exact duplicate with another label"] == {"train": 2, "validation": 0}
    assert excluded(tmp_path / "found") == {
        "train/angry/black.png",
        "train/angry/cut.png",
        "train/fear/other.png",
        "train/happy/00000.png",
        "train/sad/leak.png",
    }
    sheets = {"empty.png", "contradictions.png", "leaks.png"}
    assert {path.name for path in (tmp_path / "found").iterdir()} == {"audit.json", "audit.log", "exclude.txt", *sheets}
    with Image.open(tmp_path / "found/leaks.png") as sheet:
        assert sheet.convert("L").getpixel((0, 0)) == 0
    assert (tmp_path / "found/audit.log").read_text() in printed


def test_training_and_audit_apply_the_list(run_audit, command, faulty, tmp_path):
    assert run_audit(f"data.root={faulty}", "hydra.run.dir=found")[0] == 0
    quick = ("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.precision=32-true", "data.batch_size=10")
    exclude = f"data.exclude={tmp_path / 'found/exclude.txt'}"
    status, printed = command("data=folders", f"data.root={faulty}", exclude, *quick, "logger=none")
    assert status == 0, printed
    assert "fer_exp.audit" not in printed  # no findings are left to warn about
    status, printed = run_audit(f"data.root={faulty}", exclude, "hydra.run.dir=again")
    assert (status, excluded(tmp_path / "again")) == (0, frozenset())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse or change such names")
def test_any_folder_and_file_name(child, faces, tmp_path):
    root = tmp_path / os.fsdecode(b"my \xff\nfaces")
    shutil.copytree(faces, root)
    odd = ["two\nlines.png", "a # b.png", "😀.png", os.fsdecode(b"\xff\xfe.png")]
    for name in odd:
        shutil.copy(root / "validation/sad/00000.png", root / "train/sad" / name)
        (root / "train/fear" / name).write_text("no image")
    done = child("-m", "fer_exp.audit", f'data.root="{root}"', "hydra.run.dir=found", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "found/audit.log").read_text(encoding="utf-8") == done.stdout
    findings = json.loads((tmp_path / "found/audit.json").read_text())
    assert (findings["root"], len(findings["unreadable"])) == (str(root), 4)
    assert excluded(tmp_path / "found") == {f"train/{label}/{name}" for label in ("fear", "sad") for name in odd}


def test_synthetic_images_have_no_findings(run_audit, tmp_path):
    status, printed = run_audit("data=synthetic", "data.train=280", "data.validation=70", "hydra.run.dir=found")
    assert status == 0, printed
    assert "data.exclude" not in printed
    assert {path.name for path in (tmp_path / "found").iterdir()} == {"audit.json", "audit.log", "exclude.txt"}


def test_color_images_of_other_classes_and_sizes(run_audit, tmp_path):
    for k in range(8):
        for split, label in (("train", "cat"), ("validation", "cat"), ("train", "dog"), ("validation", "dog")):
            folder = tmp_path / "animals" / split / label
            folder.mkdir(parents=True, exist_ok=True)
            color = (30 * k, 200 if label == "cat" else 20, 90 if split == "train" else 160)
            image = Image.effect_noise((70, 60), 200).convert("RGB")
            Image.blend(image, Image.new("RGB", image.size, color), 0.5).save(folder / f"{k}.png")
    shutil.copy(tmp_path / "animals/train/cat/0.png", tmp_path / "animals/train/dog/leak.png")
    keys = ("data.image_size=64", "data.color=rgb", "data.root=animals", "hydra.run.dir=found")
    status, printed = run_audit(*keys)
    assert status == 0, printed
    assert excluded(tmp_path / "found") == {"train/cat/0.png", "train/dog/leak.png"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ["data.root=DIR"]),
        (["data.root=nowhere"], ["data.root=nowhere"]),
        (["data.root={faces}", "data.exclude=no_list"], ["data.exclude=no_list"]),
        (["data.root={faces}", "data.on_unreadable=ignore"], ["data.on_unreadable", "error", "skip"]),
        (["data.root={faces}", "near_distance=17"], ["near_distance=17", "16"]),
        (["data.root={faces}", "near_distance=few"], ["near_distance=few"]),
        (["data.root={faces}", "near_correlation=90"], ["near_correlation=90", "1"]),
        (["data.root={faces}", "plots.theme=pink"], ["plots.theme=pink", "light", "dark"]),
        (["data.rot={faces}"], ["data.rot"]),
        (["~data"], ["data=folders"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistake_gets_one_message_and_leaves_no_files(run_audit, faces, tmp_path, arguments, said):
    status, printed = run_audit(*(argument.format(faces=faces) for argument in arguments))
    assert status == 1
    assert all(part in printed for part in said), printed
    assert "Traceback" not in printed
    assert [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()] == []


def test_earlier_findings_are_not_overwritten(run_audit, faces, tmp_path):
    assert run_audit(f"data.root={faces}", "hydra.run.dir=found")[0] == 0
    (tmp_path / "found/exclude.txt").write_text("edited by hand\n")
    status, printed = run_audit(f"data.root={faces}", "hydra.run.dir=found")
    assert (status, "hydra.run.dir" in printed) == (1, True)
    assert (tmp_path / "found/exclude.txt").read_text() == "edited by hand\n"


def test_the_command_in_the_warning_of_a_training_audits_its_data(command, run_audit, tmp_path):
    rows = [f"{label},{value} 0 0 9,{split}" for split in ("train", "val") for label in "01" for value in (1, 2)]
    (tmp_path / "my table.csv").write_text("\n".join(["emo,gray,part", *rows]))
    columns = ("data.columns.label=emo", "data.columns.pixels=gray", "data.columns.split=part")
    status, printed = command(
        "data=csv", "data.file=my table.csv", *columns, "data.class_names={0: calm, 1: glad}", "data.batch_size=2",
        "model=vgg_small", "model.widths=[4,4,4,4]", "trainer.max_epochs=1", "logger=none",
    )  # fmt: skip
    assert status == 0, printed
    (line,) = {line.partition("fer_exp.audit ")[2] for line in printed.splitlines() if "fer_exp.audit" in line}
    status, printed = run_audit(*shlex.split(line), "hydra.run.dir=found")
    assert status == 0, printed
    assert json.loads((tmp_path / "found/audit.json").read_text())["counts"].keys() == {"calm", "glad"}
