"""Evaluation, prediction and export as a user runs them."""

import csv
import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from fer_exp import evaluate, export, predict
from fer_exp.config.schema import CONFIG_DIR
from fer_exp.data.sources.synthetic import write_images
from fer_exp.evaluation.images import load_images
from fer_exp.evaluation.protocol import LEDGER
from fer_exp.runs.record import read_history
from fer_exp.train import train

CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
PLOTS = {f"{name}.png" for name in ("confusion_matrix", "reliability", "per_class", "mistakes", "gradcam")}
FILES = {*PLOTS, "evaluation.html", "evaluation.md", "metrics.json", "predictions.csv", "evaluate.log"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Synthetic images with a test folder; one of its images is in validation/ too."""
    root = tmp_path_factory.mktemp("data")
    write_images(root, train=70, validation=35, seed=0)
    write_images(root / "other", train=35, validation=35, seed=1)
    (root / "other/train").rename(root / "test")
    shutil.rmtree(root / "other")
    shutil.copy(root / "validation/sad/00000.png", root / "test/sad/00000.png")
    return root


def train_network(data, folder, *overrides):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose(
            "train",
            [
                "data=folders", f"data.root={data}", "data.batch_size=10", "model=vgg_small", "logger=none",
                "trainer.max_epochs=2", "trainer.precision=32-true", f"output_dir={folder}", *overrides,
            ],
        )  # fmt: skip
    train(cfg)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Two runs, validated on validation/ and on images held out of train/."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fer_exp.training.callbacks.plots.save_plot", lambda *_: True)
        train_network(data, folder / "plain")
        train_network(data, folder / "held_out", "data.val_fraction=0.2", "trainer.max_epochs=1")
    return folder


@pytest.fixture
def runs(trained, tmp_path):
    """A copy of the runs, with records of its own."""
    shutil.copytree(trained, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def run_evaluate(run_main):
    return partial(run_main, evaluate.main, "resamples=100", "hydra.run.dir=found")


@pytest.fixture
def no_plots(monkeypatch):
    """Skip the plots, which take most of the time."""
    monkeypatch.setattr("fer_exp.evaluation.report.make_plots", lambda *_: {})
    monkeypatch.setattr("fer_exp.evaluation.report.make_sheets", lambda *_: ({}, []))


@pytest.fixture
def run_predict(run_main):
    return partial(run_main, predict.main)


def read_metrics(folder):
    return json.loads((folder / "found/metrics.json").read_text())


def read_rows(file):
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_the_report_of_a_run_on_its_validation_images(run_evaluate, runs, data, tmp_path):
    status, printed = run_evaluate(f"run={runs / 'plain'}", "tta=[none,flip]", "plots.theme=dark")
    assert status == 0, printed
    assert {path.name for path in (tmp_path / "found").iterdir()} == FILES
    for name in PLOTS:
        Image.open(tmp_path / "found" / name).verify()
    found = read_metrics(tmp_path)
    best = max(read_history(runs / "plain"), key=lambda row: row["val_acc"])
    none = found["tta"]["none"]
    assert none["accuracy"]["value"] == best["val_acc"]
    assert none["macro_f1"]["value"] == pytest.approx(best["val_macro_f1"], rel=1e-6)
    assert none["nll"]["value"] == pytest.approx(best["val_loss"], rel=1e-5)
    assert none["nll_calibrated"]["value"] <= none["nll"]["value"]
    assert np.sum(none["confusion"]) == found["images"]["count"] == 35
    assert [none["per_class"][name]["support"] for name in CLASSES] == [5] * 7
    assert (found["protocol"], found["weights"]["epoch"]) == ("folders", best["epoch"])
    for text in (printed, (tmp_path / "found/evaluation.html").read_text()):
        assert found["statement"] in text
    assert not (runs / "plain" / LEDGER).exists()

    rows = read_rows(tmp_path / "found/predictions.csv")
    assert list(rows[0]) == ["file", "label", "predicted", *CLASSES]
    assert all((data / row["file"]).is_file() for row in rows)
    assert np.mean([row["predicted"] == row["label"] for row in rows]) == pytest.approx(none["accuracy"]["value"])
    probabilities = np.array([[float(row[name]) for name in CLASSES] for row in rows])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


@pytest.mark.usefixtures("no_plots")
def test_another_precision_and_an_incomplete_training_are_noted(run_evaluate, runs, tmp_path):
    best = max(read_history(runs / "plain"), key=lambda row: row["val_acc"])
    summary = json.loads((runs / "plain/summary.json").read_text())
    (runs / "plain/summary.json").write_text(json.dumps({**summary, "status": "running"}))
    status, printed = run_evaluate(f"run={runs / 'plain'}", "trainer.precision=bf16-mixed")
    assert status == 0, printed
    found = read_metrics(tmp_path)
    assert found["environment"]["precision"] == "bf16-mixed"
    assert any("bf16-mixed" in note and "32-true" in note for note in found["notes"])
    assert any("status is running" in note for note in found["notes"])
    nll = found["tta"]["none"]["nll"]["value"]
    assert nll != pytest.approx(best["val_loss"], rel=1e-5)
    assert nll == pytest.approx(best["val_loss"], rel=0.02)


@pytest.mark.usefixtures("no_plots")
def test_a_held_out_run_is_evaluated_on_images_that_it_did_not_use(run_evaluate, runs, tmp_path):
    status, printed = run_evaluate(f"run={runs / 'held_out'}", "tta=flip")
    assert status == 0, printed
    found = read_metrics(tmp_path)
    assert (found["protocol"], list(found["tta"])) == ("held_out", ["flip"])
    assert any("14 images" in note for note in found["notes"])  # of the temperature
    official = (f"run={runs / 'held_out'}", "protocol=official", "hydra.run.dir=official")
    status, printed = run_evaluate(*official)
    assert (status, "after 1 other evaluation" in printed) == (0, True), printed
    assert run_evaluate(f"run={runs / 'held_out'}", "hydra.run.dir=again")[0] == 1


@pytest.mark.usefixtures("no_plots")
def test_the_temperature_does_not_depend_on_the_order_of_the_images(run_evaluate, runs, tmp_path, monkeypatch):
    """A folder with the validation images of a table can have another order."""

    def load_reversed(*arguments):
        images = load_images(*arguments)
        return replace(images, evaluated=images.evaluated.select(torch.arange(35).flip(0)))

    def predict_labels(_, dataset, *__):
        return (3.0 * torch.eye(7, dtype=torch.float64))[dataset.labels].log_softmax(dim=1)

    monkeypatch.setattr("fer_exp.evaluation.images.load_images", load_reversed)
    monkeypatch.setattr("fer_exp.evaluation.inference.predict_dataset", predict_labels)
    status, printed = run_evaluate(f"run={runs / 'plain'}")
    assert (status, "Protocol folders" in printed) == (0, True), printed
    assert read_metrics(tmp_path)["tta"]["none"]["nll_calibrated"]["value"] == pytest.approx(0, abs=1e-6)


@pytest.mark.usefixtures("no_plots")
def test_a_test_set_is_reported_once(run_evaluate, runs, data, tmp_path):
    run = runs / "plain"
    (tmp_path / "found").write_text("in the way")
    status, printed = run_evaluate(f"run={run}", "split=test")
    assert (status, (run / LEDGER).exists()) == (1, False), printed
    (tmp_path / "found").unlink()

    status, printed = run_evaluate(f"run={run}", "split=test")
    assert status == 0, printed
    assert read_metrics(tmp_path)["images"]["copies"] == {"train": 0, "selection": 1}
    accuracy = read_metrics(tmp_path)["tta"]["none"]["accuracy"]["value"]
    (report,) = json.loads((run / LEDGER).read_text())["reports"].values()
    assert (report["images"], report["accuracy"], report["weights"]) == (35, accuracy, "best")

    shutil.copytree(data / "test", tmp_path / "elsewhere")
    for split in ("split=test", f"split={tmp_path / 'elsewhere'}"):
        status, printed = run_evaluate(f"run={run}", split, "hydra.run.dir=again", "weights=last")
        assert status == 1
        assert f"{100 * accuracy:.2f} %" in printed
        assert not (tmp_path / "again").exists()
    assert run_evaluate(f"run={runs / 'held_out'}", "split=test", "hydra.run.dir=again")[0] == 0


@pytest.mark.parametrize("failing", ["write_report", "_record"])
@pytest.mark.usefixtures("no_plots")
def test_the_one_report_is_written_before_it_is_recorded(run_evaluate, runs, monkeypatch, failing):
    """An interruption at either place leaves the run free to be reported."""

    def interrupt(*_):
        raise KeyboardInterrupt

    place = "fer_exp.evaluation.report.write_report" if failing == "write_report" else "fer_exp.evaluate._record"
    with monkeypatch.context() as patch:
        patch.setattr(place, interrupt)
        assert run_evaluate(f"run={runs / 'plain'}", "split=test")[0] == 130
    assert not (runs / "plain" / LEDGER).exists()
    assert run_evaluate(f"run={runs / 'plain'}", "split=test", "hydra.run.dir=again")[0] == 0


def test_a_closed_terminal_loses_no_report(runs, tmp_path):
    command = [sys.executable, "-m", "fer_exp.evaluate", f"run={runs / 'plain'}", "split=test", "hydra.run.dir=found"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.stdout.close()
    process.wait(timeout=120)
    written, recorded = (tmp_path / "found/metrics.json").exists(), (runs / "plain" / LEDGER).exists()
    assert (written, recorded) == (True, True), process.stderr.read()


@pytest.mark.usefixtures("no_plots")
def test_other_weights_splits_and_checkpoints(run_evaluate, runs, data, tmp_path):
    status, printed = run_evaluate(f"run={runs / 'plain'}", "split=train", "weights=last")
    assert status == 0, printed
    found = read_metrics(tmp_path)
    assert (found["protocol"], found["images"]["count"], found["weights"]["name"]) == ("training", 70, "last")

    shutil.copy(runs / "plain/checkpoints/best.ckpt", tmp_path / "copy.ckpt")
    shutil.copytree(data / "test", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "found")
    status, printed = run_evaluate("ckpt=copy.ckpt", f"split={tmp_path / 'elsewhere'}")
    assert status == 0, printed
    found = read_metrics(tmp_path)
    assert (found["protocol"], found["weights"]["run"]) == ("other", None)


@pytest.mark.usefixtures("no_plots")
def test_data_that_moved_or_changed(run_evaluate, runs, data, tmp_path):
    moved = data.rename(tmp_path / "moved")
    try:
        status, printed = run_evaluate(f"run={runs / 'plain'}")
        assert (status, "data.root=DIR" in printed) == (1, True)
        status, printed = run_evaluate(f"run={runs / 'plain'}", f"data.root={moved}")
        assert (status, read_metrics(tmp_path)["protocol"]) == (0, "folders"), printed
    finally:
        shutil.copytree(moved, data)
    (moved / "validation/sad/00000.png").unlink()
    changed = (f"run={runs / 'plain'}", f"data.root={moved}", "hydra.run.dir=again")
    status, printed = run_evaluate(*changed)
    assert (status, "Protocol other" in printed, "changed" in printed) == (0, True, True)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "run=DIR"),
        (["run=nowhere"], "run=nowhere"),
        (["ckpt=nowhere.ckpt"], "nowhere.ckpt"),
        (["run={plain}", "weights=restored"], "weights=restored"),
        (["run={plain}", "tta=[]"], "tta=[]"),
        (["run={plain}", "tta=[none,twice]"], "twice"),
        (["run={plain}", "protocol=private"], "protocol=private"),
        (["run={plain}", "protocol=official"], "split=validation"),
        (["run={plain}", "split=nowhere"], "split=nowhere"),
        (["run={plain}", "resamples=10"], "resamples=10"),
        (["run={plain}", "plots.theme=pink"], "plots.theme=pink"),
        (["run={plain}", "data.root=nowhere"], "data.root=nowhere"),
        (["run={plain}", "data.val_fraction=0.2"], "data.val_fraction=0.2"),
        (["run={plain}", "splitt=test"], "splitt=test"),
        (["ckpt={damaged}"], "damaged.ckpt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_message_and_leaves_nothing(run_main, trained, tmp_path, arguments, part):
    (tmp_path / "damaged.ckpt").write_bytes((trained / "plain/checkpoints/best.ckpt").read_bytes()[:5000])
    places = {"plain": trained / "plain", "damaged": tmp_path / "damaged.ckpt"}
    status, printed = run_main(evaluate.main, *(argument.format(**places) for argument in arguments))
    assert status == 1
    assert part in printed
    assert printed.count("Error: ") == 1
    assert "Traceback" not in printed
    assert [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("no_plots")
def test_predictions_are_those_of_the_evaluation(run_evaluate, run_predict, trained, data, tmp_path):
    run, output = f"run={trained / 'plain'}", tmp_path / "named/predictions.csv"
    assert run_evaluate(run, "tta=flip")[0] == 0
    assert run_evaluate(run, "tta=flip")[0] == 1  # nothing is overwritten
    (tmp_path / "bad.jpg").write_text("no image")
    images = f"images=[{data / 'validation'},bad.jpg]"
    status, printed = run_predict(run, images, "tta=flip", f"output={output}", "top=2")
    assert status == 0, printed
    assert "bad.jpg" in printed
    rows = {row["file"]: row for row in read_rows(output)}
    evaluated = {str(data / row["file"]): row for row in read_rows(tmp_path / "found/predictions.csv")}
    assert rows.keys() == evaluated.keys()
    for file, row in rows.items():
        np.testing.assert_allclose(*([float(r[name]) for name in CLASSES] for r in (row, evaluated[file])), atol=2e-6)
        assert row["predicted"] == evaluated[file]["predicted"]
        assert f"{file}: {row['predicted']} {100 * float(row[row['predicted']]):.1f} % (" in printed
    assert run_predict(run, images, f"output={output}")[0] == 1


def test_files_in_csv_are_no_formulas(run_predict, trained, data, tmp_path):
    shutil.copy(data / "validation/sad/00000.png", tmp_path / "=1+1.png")
    shutil.copy(data / "validation/sad/00000.png", tmp_path / "a\x1b[31m.png")
    status, printed = run_predict(f"run={trained / 'plain'}", "images=.", "output=out.csv")
    assert status == 0, printed
    assert "\x1b" not in printed
    assert [row["file"][0] for row in read_rows(tmp_path / "out.csv")] == ["'", "a"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["images=face.png"], "run=DIR"),
        (["run={run}"], "images"),
        (["run={run}", "images=nowhere.png"], "nowhere.png"),
        (["run={run}", f"images={'long' * 80}"], "long"),
        (["run={run}", "images=empty"], "images=empty"),
        (["run={run}", "images=text.txt"], "images=text.txt"),
        (["run={run}", "images=text.txt", "tta=[flip]"], "tta=['flip']"),
        (["run={run}", "images=text.txt", "top=8"], "top=8"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_a_prediction_gets_one_message(run_predict, trained, tmp_path, arguments, part):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("text")
    status, printed = run_predict(*(argument.format(run=trained / "plain") for argument in arguments))
    assert status == 1
    assert part in printed
    assert printed.count("Error: ") == 1
    assert "Traceback" not in printed


@pytest.mark.filterwarnings("ignore:.*torch.jit.load")
def test_a_run_is_exported(run_main, trained, data, tmp_path):
    status, printed = run_main(export.main, f"run={trained / 'plain'}", "format=torchscript", "hydra.run.dir=model")
    assert status == 0, printed
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"model.pt", "model.json", "export.log"}
    details = json.loads((tmp_path / "model/model.json").read_text())
    assert (details["classes"], details["run"]) == (list(CLASSES), str(trained / "plain"))
    assert (details["image_shape"], details["color"], details["resize"]) == ([1, 48, 48], "gray", "stretch")
    images = sorted((data / "validation").rglob("*.png"))
    pixels = torch.from_numpy(np.stack([np.asarray(Image.open(image)) for image in images])[:, None])
    probabilities = torch.jit.load(tmp_path / "model/model.pt")(pixels)
    assert run_main(predict.main, f"run={trained / 'plain'}", f"images={data / 'validation'}", "output=out.csv")[0] == 0
    expected = [[float(row[name]) for name in CLASSES] for row in read_rows(tmp_path / "out.csv")]
    np.testing.assert_allclose(probabilities.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["run=nowhere", "format=torchscript"], "run=nowhere"),
        (["run={run}", "format=tflite"], "format=tflite"),
        (["run={run}", "format=onnx"], "pip install onnx"),
    ],
)
def test_a_mistake_in_an_export_gets_one_message(run_main, trained, tmp_path, monkeypatch, arguments, part):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if "onnx" in name else find_spec(name, *_))
    status, printed = run_main(export.main, *(argument.format(run=trained / "plain") for argument in arguments))
    assert (status, part in printed, printed.count("Error: ")) == (1, True, 1)
    assert [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()] == []
