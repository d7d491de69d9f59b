"""The audit as a person uses it: faults in, a table, findings, pictures and a list for the training out."""

import json
import os
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
    """The drawn faces with a leak, a contradiction, a black image and a cut one."""
    root = tmp_path / "faulty"
    shutil.copytree(faces, root)
    shutil.copy(root / "validation/sad/00000.png", root / "train/sad/leak.png")
    shutil.copy(root / "train/happy/00000.png", root / "train/fear/other.png")
    Image.new("L", (48, 48)).save(root / "train/angry/black.png")
    (root / "train/angry/cut.png").write_bytes((root / "train/angry/00000.png").read_bytes()[:500])
    return root


def test_what_is_wrong_is_printed_and_written(run_audit, faulty, tmp_path):
    status, printed = run_audit(f"data.root={faulty}", "hydra.run.dir=found")
    assert status == 0, printed
    rows = {line[:50].strip(): line[50:].split() for line in printed.splitlines() if len(line) == 74}
    assert rows == {
        "class": ["train", "validation"],
        "angry": ["12", "5"],
        **{name: ["10", "5"] for name in ("disgust", "happy", "neutral", "surprise")},
        "fear": ["11", "5"],
        "sad": ["11", "5"],
        "largest class / smallest": ["1.2", "1.0"],
        "found": ["train", "validation"],
        "cannot be read": ["1", "0"],
        "all pixels alike": ["1", "0"],
        "same pixels in the other split": ["1", "1"],
        "same pixels or near duplicate in the other split": ["1", "1"],
        "same pixels with another label": ["2", "0"],
        "same pixels as an earlier image of the split": ["1", "0"],
    }
    assert {path.name for path in (tmp_path / "found").iterdir()} == {
        "audit.json", "audit.log", "exclude.txt", "unreadable.png", "empty.png", "contradictions.png", "leaks.png",
    }  # fmt: skip
    findings = json.loads((tmp_path / "found/audit.json").read_text())
    assert findings["root"] == str(faulty)
    assert findings["counts"]["angry"] == {"train": 12, "validation": 5}
    assert [entry["file"] for entry in findings["unreadable"]] == ["train/angry/cut.png"]
    assert (tmp_path / "found/audit.log").read_text() in printed
    assert not (tmp_path / "outputs").exists()


def test_the_list_it_writes_is_honoured_by_the_training_and_by_itself(run_audit, command, faulty, tmp_path):
    assert run_audit(f"data.root={faulty}", "hydra.run.dir=found")[0] == 0
    quick = ("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.precision=32-true", "data.batch_size=10")
    exclude = f"data.exclude={tmp_path / 'found/exclude.txt'}"
    status, printed = command("data=folders", f"data.root={faulty}", *quick)
    assert (status, "cut.png: " in printed, "data.on_unreadable=skip" in printed) == (1, True, True)
    status, printed = command("data=folders", f"data.root={faulty}", "data.on_unreadable=skip", *quick, "logger=none")
    assert status == 0, printed
    assert "Warning: 1 training images are also in validation, 0 of them with another label; " in printed
    assert f"python -m fer_exp.audit data.root={faulty}" in printed
    status, printed = command("data=folders", f"data.root={faulty}", exclude, *quick, "logger=none")
    assert status == 0, printed
    assert "5 images are excluded" in printed
    assert "Found 69 images belonging to 7 classes." in printed
    assert "fer_exp.audit" not in printed  # nothing is left to warn of
    status, printed = run_audit(f"data.root={faulty}", exclude)
    assert (status, "Nothing wrong was found." in printed) == (0, True)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems forbid such names, or change them")
def test_a_folder_and_files_of_odd_names(child, faces, tmp_path):
    """In a process of its own, with a terminal and a log file that take UTF-8 only."""
    root = tmp_path / os.fsdecode(b"my \xff\nfaces")
    shutil.copytree(faces, root)
    odd = ["two\nlines.png", "a # b.png", "😀.png", os.fsdecode(b"\xff\xfe.png")]
    for name in odd:
        shutil.copy(root / "validation/sad/00000.png", root / "train/sad" / name)
        (root / "train/fear" / name).write_text("no image")
    done = child("-m", "fer_exp.audit", f'data.root="{root}"', "hydra.run.dir=found", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Looking at 113 files in " in done.stdout
    assert (tmp_path / "found/audit.log").read_text(encoding="utf-8") == done.stdout
    findings = json.loads((tmp_path / "found/audit.json").read_text())
    assert (findings["root"], len(findings["unreadable"])) == (str(root), 4)
    assert read_exclusions(tmp_path / "found/exclude.txt") == {
        f"train/{label}/{name}" for label in ("fear", "sad") for name in odd
    }


def test_the_drawn_faces_are_sound(run_audit, tmp_path):
    status, printed = run_audit("data=synthetic", "data.train=280", "data.validation=70")
    assert status == 0, printed
    assert "Nothing wrong was found." in printed
    assert "data.exclude" not in printed
    (folder,) = (tmp_path / "outputs/audits").iterdir()
    assert {path.name for path in folder.iterdir()} == {"audit.json", "audit.log", "exclude.txt"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ["data.root must be set", "data.root=DIR"]),
        (["data.root=nowhere"], ["data.root=nowhere", "no such folder"]),
        (["data.root={faces}", "data.exclude=no_list"], ["data.exclude=no_list", "cannot be read"]),
        (["data.root={faces}", "data.on_unreadable=ignore"], ["data.on_unreadable=ignore", "error or skip"]),
        (["data.root={faces}", "near_distance=17"], ["near_distance=17", "0 to 16"]),
        (["data.root={faces}", "near_distance=few"], ["near_distance=few", "0 to 16"]),
        (["data.root={faces}", "near_correlation=90"], ["near_correlation=90", "up to 1"]),
        (["data.rot={faces}"], ["data.rot"]),
        (["~data"], ["nothing is chosen"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_gets_one_message_and_leaves_nothing(run_audit, faces, tmp_path, arguments, said):
    status, printed = run_audit(*(argument.format(faces=faces) for argument in arguments))
    assert status == 1
    assert all(part in printed for part in said), printed
    assert "Traceback" not in printed
    assert [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()] == []


def test_findings_are_not_written_over(run_audit, faces, tmp_path):
    assert run_audit(f"data.root={faces}", "hydra.run.dir=found")[0] == 0
    (tmp_path / "found/exclude.txt").write_text("edited by hand\n")
    status, printed = run_audit(f"data.root={faces}", "hydra.run.dir=found")
    assert status == 1
    assert "choose another hydra.run.dir" in printed
    assert (tmp_path / "found/exclude.txt").read_text() == "edited by hand\n"


def test_help_tells_what_it_does_without_loading_torch(child, tmp_path):
    program = "import sys; from fer_exp.audit import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    done = child("-c", program, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "python -m fer_exp.audit data.root=DIR" in done.stdout
    assert "near_distance: 8" in done.stdout
    assert list(tmp_path.iterdir()) == []
