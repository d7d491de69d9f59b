"""Evaluation and prediction as a person uses them: a run in; figures, tables, pictures and predictions out."""

import csv
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from fer_exp import evaluate, predict
from fer_exp.config.schema import CONFIG_DIR
from fer_exp.data.cache import default_cache_dir, load_split
from fer_exp.data.soft_labels import read_soft_labels
from fer_exp.data.sources.class_folders import CLASSES, list_images
from fer_exp.data.sources.synthetic import write_faces
from fer_exp.evaluation.protocol import LEDGER
from fer_exp.runs.record import read_history
from fer_exp.train import train

PICTURES = {f"{name}.png" for name in ("confusion_matrix", "reliability", "per_class", "mistakes", "attention")}
WRITTEN = {*PICTURES, "evaluation.json", "evaluation.md", "predictions.csv", "evaluate.log"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Drawn faces with a test folder; one face of it is in validation/ too."""
    root = tmp_path_factory.mktemp("data")
    write_faces(root, train=70, validation=35, seed=0)
    write_faces(root / "other", train=35, validation=35, seed=1)
    (root / "other/train").rename(root / "test")
    shutil.rmtree(root / "other")
    shutil.copy(root / "validation/sad/00000.png", root / "test/sad/00000.png")
    return root


def train_a_small_network(data, folder, *overrides):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose(
            "train",
            [
                "data=folders", f"data.root={data}", "data.batch_size=10", "model=resnet18", "model.width=16",
                "logger=none", "trainer.max_epochs=2", f"output_dir={folder}", *overrides,
            ],
        )  # fmt: skip
    train(cfg)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Two runs of a small network, selected on validation/ and on held-out images."""
    folder = tmp_path_factory.mktemp("runs")
    for name, share in (("plain", 0.0), ("held_out", 0.2)):
        train_a_small_network(data, folder / name, f"data.val_fraction={share}", "trainer.precision=32-true")
    return folder


@pytest.fixture
def runs(trained, tmp_path):
    """A copy of the runs, so that each test has ledgers of its own."""
    shutil.copytree(trained, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def run_evaluate(run_main):
    """The command: ``run_evaluate("run=DIR")``."""
    return partial(run_main, evaluate.main, "resamples=100", "hydra.run.dir=found")


@pytest.fixture
def no_pictures(monkeypatch):
    """Leave the drawing out, which takes most of the time."""
    monkeypatch.setattr("fer_exp.evaluation.report._draw", lambda *_: ({}, []))


@pytest.fixture
def run_predict(run_main):
    """The command: ``run_predict("run=DIR", "images=DIR")``."""
    return partial(run_main, predict.main)


def read(folder):
    return json.loads((folder / "found/evaluation.json").read_text())


def test_a_run_is_evaluated_on_its_validation_images(run_evaluate, runs, data, tmp_path):
    status, printed = run_evaluate(f"run={runs / 'plain'}", "views=[single,flip]")
    assert status == 0, printed
    assert {path.name for path in (tmp_path / "found").iterdir()} == WRITTEN
    for name in PICTURES:
        Image.open(tmp_path / "found" / name).verify()

    found = read(tmp_path)
    best = max(read_history(runs / "plain"), key=lambda row: row["val_acc"])
    single = found["views"]["single"]
    assert single["accuracy"]["value"] == best["val_acc"]
    assert printed.count("Found 70 images") == 1
    assert single["macro_f1"]["value"] == pytest.approx(best["val_macro_f1"], rel=1e-6)
    assert single["nll"]["value"] == pytest.approx(best["val_loss"], rel=1e-5)
    assert single["accuracy"]["low"] <= single["accuracy"]["value"] <= single["accuracy"]["high"]
    assert single["nll_calibrated"]["value"] <= single["nll"]["value"]
    assert np.sum(single["confusion"]) == found["images"]["number"] == 35
    np.testing.assert_allclose(np.sum(single["confusion_normalised"], axis=1), 1)
    assert [single["per_class"][name]["support"] for name in CLASSES] == [5] * 7
    assert (single["test_time_augmentation"], found["views"]["flip"]["test_time_augmentation"]) == (False, True)
    assert (found["protocol"], found["weights"]["epoch"]) == ("folders", best["epoch"])

    rule = "the best val_acc on validation/; reported on validation/, selected on the images it is reported on"
    table = (tmp_path / "found/evaluation.md").read_text()
    for place in (printed, table, found["statement"]):
        assert rule in place
    assert table.removeprefix("# Evaluation\n\n").strip() in printed
    assert "| single view " in table
    assert "| TTA: mirrored " in table
    assert not (runs / "plain" / LEDGER).exists()

    with (tmp_path / "found/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "label", *CLASSES]
    assert all((data / row["file"]).is_file() for row in rows)
    assert all(row["file"].startswith(f"validation/{row['label']}/") for row in rows)
    probabilities = np.array([[float(row[name]) for name in CLASSES] for row in rows])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    named = [CLASSES[k] for k in probabilities.argmax(axis=1)]
    right = np.mean([name == row["label"] for name, row in zip(named, rows, strict=True)])
    assert right == pytest.approx(single["accuracy"]["value"])
    # What one network says, another can learn.
    images = load_split(list_images(data / "validation"), default_cache_dir())[0]
    soft_labels, count = read_soft_labels(tmp_path / "found/predictions.csv", images, Path("validation"))
    assert count == len(images)
    np.testing.assert_allclose(soft_labels, probabilities, atol=1e-5)


@pytest.mark.usefixtures("no_pictures")
def test_in_the_precision_of_the_run_its_own_figures_come_out(run_evaluate, data, tmp_path):
    train_a_small_network(data, tmp_path / "run", "trainer.precision=bf16-mixed")
    best = max(read_history(tmp_path / "run"), key=lambda row: row["val_acc"])
    found = {}
    for precision in ("32-true", "bf16-mixed"):
        status, printed = run_evaluate(f"run={tmp_path / 'run'}", f"trainer.precision={precision}", "batch_size=10")
        assert status == 0, printed
        assert f"Precision: {precision} (as set)." in printed
        found[precision] = read(tmp_path)
        assert found[precision]["environment"]["precision"] == precision
        shutil.rmtree(tmp_path / "found")
    said = ["validated in bf16-mixed, and this is 32-true", "The figures are computed in bf16-mixed."]
    for words, evaluation in zip(said, found.values(), strict=True):
        assert [words for words in said if words in " ".join(evaluation["notes"])] == [words]
    whole, half = (f["views"]["single"]["nll"]["value"] for f in found.values())
    assert half == pytest.approx(best["val_loss"], rel=1e-5)
    assert half != pytest.approx(whole, rel=1e-5)
    assert half == pytest.approx(whole, rel=0.02)


@pytest.mark.usefixtures("no_pictures")
def test_held_out_runs_are_reported_on_images_that_they_did_not_see(run_evaluate, runs, tmp_path):
    status, printed = run_evaluate(f"run={runs / 'held_out'}", "protocol=held_out", "views=flip")
    assert status == 0, printed
    assert "20% of train/, held out; reported on validation/, which no choice of this run saw" in printed
    assert "The temperature was fitted on the images held out of train/ (14 images)" in printed
    assert "| TTA: mirrored " in printed
    assert "| single view " not in printed
    assert read(tmp_path)["protocol"] == "held_out"


@pytest.mark.usefixtures("no_pictures")
def test_test_images_are_reported_once(run_evaluate, runs, data, tmp_path):
    run = runs / "plain"
    (tmp_path / "found").write_text("in the way")
    status, printed = run_evaluate(f"run={run}", "split=test")
    assert (status, (run / LEDGER).exists()) == (1, False), printed  # a failure is no report
    (tmp_path / "found").unlink()

    status, printed = run_evaluate(f"run={run}", "split=test")
    assert status == 0, printed
    assert "1 of the 35 images have exactly the pixels of one that the run was validated on" in printed
    accuracy = read(tmp_path)["views"]["single"]["accuracy"]["value"]
    (report,) = json.loads((run / LEDGER).read_text())["reports"].values()
    assert (report["images"], report["accuracy"], report["weights"]) == (35, accuracy, "best")

    shutil.copytree(data / "test", tmp_path / "elsewhere")
    for split in ("split=test", f"split={tmp_path / 'elsewhere'}"):
        status, printed = run_evaluate(f"run={run}", split, "hydra.run.dir=again", "weights=last")
        assert status == 1
        assert f"with an accuracy of {accuracy:.2%}" in printed
        assert report["time"][:10] in printed
        assert not (tmp_path / "again").exists()
    assert run_evaluate(f"run={runs / 'held_out'}", "split=test", "hydra.run.dir=again")[0] == 0


@pytest.mark.usefixtures("no_pictures")
def test_a_test_is_not_reported_where_that_cannot_be_noted(run_evaluate, runs, tmp_path):
    (runs / "held_out/.hydra").write_text("in the way")
    status, printed = run_evaluate(f"run={runs / 'held_out'}", "split=test")
    assert status == 1
    assert "cannot be written (File exists): allow this user to write there, where it is noted" in printed
    assert "Protocol" not in printed


def test_other_weights_splits_and_checkpoints(run_evaluate, runs, data, tmp_path):
    restored = runs / "plain/checkpoints/restored.ckpt"
    status, printed = run_evaluate(f"run={runs / 'plain'}", "split=train", "weights=restored")
    assert status == 0, printed
    found = read(tmp_path)
    assert (found["protocol"], found["images"]["number"]) == ("training", 70)
    assert "a fit, no result" in found["statement"]
    assert "the best val_loss on validation/" in found["statement"]

    shutil.copy(restored, tmp_path / "copy.ckpt")
    shutil.copytree(data / "test", tmp_path / "elsewhere")
    split = f"split={tmp_path / 'elsewhere'}"
    status, printed = run_evaluate("ckpt=copy.ckpt", split, "hydra.run.dir=alone")
    assert status == 0, printed
    assert "Protocol other: weights of an untold epoch, selection unknown (no run record)" in printed
    assert "No temperature could be fitted" in printed
    assert "ECE at T" in printed
    assert " n/a " in printed


@pytest.mark.usefixtures("no_pictures")
def test_data_that_have_moved_or_changed_are_said(run_evaluate, runs, data, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    status, printed = run_evaluate(f"run={runs / 'plain'}", f"data.root={moved}")
    assert (status, "Protocol folders" in printed, "are not those that" in printed) == (0, True, False), printed
    (moved / "validation/sad/00000.png").unlink()
    changed = (f"run={runs / 'plain'}", f"data.root={moved}", "hydra.run.dir=again")
    status, printed = run_evaluate(*changed, "protocol=folders")
    assert (status, "not those that the run was selected on" in printed) == (1, True)
    status, printed = run_evaluate(*changed)
    assert (status, "Protocol other" in printed, "are not those that the run was validated on" in printed) == (
        0,
        True,
        True,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either run=DIR"),
        (["run=nowhere"], "run=nowhere: expected the folder of a run"),
        (["ckpt=nowhere.ckpt"], "there is no such checkpoint"),
        (["run={plain}", "weights=worst"], "weights=worst: expected one of best, restored, last"),
        (["run={plain}", "views=[]"], "views=[]: expected a list of some of single, flip, ten_crop"),
        (["run={plain}", "views=[single,twice]"], "views=['single', 'twice']"),
        (["run={plain}", "protocol=private"], "expected one of auto, folders, held_out"),
        (["run={plain}", "protocol=held_out"], "trained with data.val_fraction=0"),
        (["run={plain}", "split=nowhere"], "split=nowhere: expected validation, train, test, selection, or a folder"),
        (["run={plain}", "resamples=10"], "resamples=10: expected a whole number from 100 up"),
        (["run={plain}", "data.root=nowhere"], "data.root=nowhere: there is no such folder"),
        (["run={plain}", "data.val_fraction=2"], "data.val_fraction=2: expected a share"),
        (
            ["run={plain}", "data.val_fraction=0.2"],
            "data.val_fraction=0.2: this run was trained with 0.0, and other images",
        ),
        (["run={plain}", "splitt=test"], "splitt=test: there is no such key"),
        (["ckpt={damaged}"], "this is not a checkpoint of a run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_message_and_leaves_nothing(run_main, trained, tmp_path, arguments, said):
    (tmp_path / "damaged.ckpt").write_bytes((trained / "plain/checkpoints/best.ckpt").read_bytes()[:5000])
    places = {"plain": trained / "plain", "damaged": tmp_path / "damaged.ckpt"}
    status, printed = run_main(evaluate.main, *(argument.format(**places) for argument in arguments))
    assert status == 1
    assert said in printed, printed
    assert printed.count("Error: ") == 1
    assert "Traceback" not in printed
    assert [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("no_pictures")
def test_an_evaluation_is_not_written_over(run_evaluate, trained):
    assert run_evaluate(f"run={trained / 'plain'}")[0] == 0
    status, printed = run_evaluate(f"run={trained / 'plain'}")
    assert (status, "choose another hydra.run.dir" in printed) == (1, True)


@pytest.mark.usefixtures("no_pictures")
def test_expressions_are_named_as_in_the_evaluation(run_evaluate, run_predict, trained, data, tmp_path):
    run, output = f"run={trained / 'plain'}", tmp_path / "named/predictions.csv"
    assert run_evaluate(run, "views=flip")[0] == 0
    (tmp_path / "bad.jpg").write_text("no image")
    images = f"images=[{data / 'validation'},bad.jpg]"
    status, printed = run_predict(run, images, "views=flip", f"output={output}", "top=2")
    assert status == 0, printed
    assert "Warning: bad.jpg cannot be read: text, not an image" in printed
    assert printed.partition("\nWarning")[0].endswith(predict.REMINDER)  # errors are printed apart, and come last here
    with output.open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    with (tmp_path / "found/predictions.csv").open(newline="") as file:
        evaluated = {str(data / row["file"]): row for row in csv.DictReader(file)}
    assert rows.keys() == evaluated.keys()
    for file, row in rows.items():
        np.testing.assert_allclose(*([float(r[name]) for name in CLASSES] for r in (row, evaluated[file])), atol=2e-6)
        likeliest = max(CLASSES, key=lambda name: float(row[name]))
        assert row["predicted"] == likeliest
        assert f"{file}: {likeliest} {float(row[likeliest]):.1%} (" in printed
    in_half = tmp_path / "half.csv"
    assert run_predict(run, images, "views=flip", "trainer.precision=bf16-mixed", f"output={in_half}")[0] == 0
    assert in_half.read_text() != output.read_text()
    status, printed = run_predict(run, images, f"output={output}")
    assert (status, "is there already" in printed) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["images=face.png"], "give either run=DIR"),
        (["run={run}"], "images must be set"),
        (["run={run}", "images=nowhere.png"], "images=nowhere.png: there is no such file or folder"),
        (["run={run}", f"images={'long' * 80}"], "long: cannot be read (File name too long)"),
        (["run={run}", "images=empty"], "images=empty: this folder holds no images"),
        (["run={run}", "images=empty/text.txt"], "none of the 1 files can be read"),
        (["run={run}", "images=empty/text.txt", "views=[flip]"], "views=['flip']: expected one of single"),
        (["run={run}", "images=empty/text.txt", "top=8"], "top=8: expected a whole number from 1 to 7"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_a_prediction_gets_one_message(run_predict, trained, tmp_path, arguments, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/text.txt").write_text("text")
    status, printed = run_predict(*(argument.format(run=trained / "plain") for argument in arguments))
    assert status == 1
    assert said in printed, printed
    assert printed.count("Error: ") == 1
    assert "Traceback" not in printed


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_help_tells_what_it_does_without_loading_torch(child, tmp_path, command):
    program = f"import sys; from fer_exp.{command} import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    done = child("-c", program, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"python -m fer_exp.{command} run=DIR" in done.stdout
    assert list(tmp_path.iterdir()) == []
