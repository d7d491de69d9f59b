import json
import math
import os

import pytest

from fer_exp.comparison.grouping import differing_keys, shorten_keys
from fer_exp.comparison.load import UnreadableRecordError, find_records, read_run
from fer_exp.errors import UserError
from fer_exp.runs.record import SUMMARY


def rewrite(folder, **changes):
    """Change keys of a summary."""
    path = folder / SUMMARY
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_record_is_read(make_run):
    run = make_run("sgd", 7, (0.3, 0.6, 0.5), settings={"optimizer.lr": 0.05, "optimizer.betas": [0.9, 0.99]})
    assert (run.status, run.seed, run.epochs, run.counts, run.held_out) == ("completed", 7, 3, True, False)
    assert run.choices == {"optimizer": "sgd", "model": "notebook_cnn"}
    assert run.settings["optimizer.betas"] == "[0.9, 0.99]"
    assert run.settings["data.fingerprint"] == f"{'a' * 12}/{'b' * 12}"
    assert not {"seed", "output_dir", "data.root", "trainer.precision", "logger.save_dir"} & set(run.settings)
    assert run.history["val_acc"].tolist() == [0.3, 0.6, 0.5]
    assert run.train_seconds.tolist() == [30, 60, 90]
    assert run.confusion.sum() == run.class_counts.sum() == 3589


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer", "sgd"),
        ("optimizer.lr", 0.1),
        ("trainer.max_epochs", 5),
        ("seed", 3),
        ("data.root", "/data/fer2013"),
        ("environment.versions.torch", "2.11"),
        ("trainer.precision", "32-true"),
        ("trainer.accelerator", "a processor"),
        ("scheduler", None),
        ("optimizer.lrr", None),
        ("folder", "runs"),
    ],
)
def test_value_finds_choices_settings_and_facts(make_run, key, value):
    assert make_run("sgd", 3, settings={"optimizer.lr": 0.1}).value(key) == value


def test_metrics_are_from_the_best_epoch_by_monitor_and_from_the_last(make_run):
    run = make_run(val_acc=(0.3, 0.6, 0.5), val_loss=[1.5, 1.2, 1.3])
    assert (run.metric("best", "val_acc"), run.metric("final", "val_acc")) == (0.6, 0.5)
    assert (run.metric("best", "val_loss"), run.metric("final", "val_loss")) == (1.2, 1.3)
    assert math.isnan(run.metric("best", "val_other"))


def test_a_diverged_run_scores_as_it_ended(make_run):
    run = make_run(val_acc=(0.3, 0.14), status="diverged", train_loss=[1.7, math.nan], val_loss=[1.7, math.nan])
    assert run.counts
    for measure in ("best", "final"):
        assert run.metric(measure, "val_acc") == 0.14
        assert run.metric(measure, "val_loss") == math.inf
    assert run.to_target("val_acc", 0.3)["epochs"] == math.inf


def test_time_to_target_counts_training_only(make_run):
    run = make_run(val_acc=(0.3, 0.5, 0.4, 0.6))
    assert run.to_target("val_acc", 0.5) == {"epochs": 2, "steps": 20, "seconds": 60}
    assert run.to_target("val_acc", 0.61) == dict.fromkeys(("epochs", "steps", "seconds"), math.inf)
    assert run.to_target("val_loss", 1.5)["epochs"] == 2  # a loss is reached from above


def test_folders_are_read_in_natural_order_and_once(make_run, tmp_path):
    for _ in range(11):
        make_run()
    (tmp_path / "runs/again").symlink_to(tmp_path / "runs", target_is_directory=True)  # links in a circle
    (tmp_path / "runs/2/inner").mkdir()
    records = find_records([tmp_path, tmp_path / "runs", tmp_path / "runs/2"])
    assert [run.folder.name for run in records.runs] == [str(n) for n in range(1, 12)]


def test_without_a_record_or_a_folder_there_is_one_message(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=str(place)):
            find_records([place])


VALUES = [None, -1, 1e400, True, "text", [[1, 2], [3]], {"a": []}]


def test_a_damaged_value_of_any_key_excludes_the_record_or_is_harmless(make_run, tmp_path):
    from fer_exp.comparison.analysis import compare
    from fer_exp.comparison.sections import make_report

    good, *bad = make_run("adam", 0), *(make_run("sgd", seed) for seed in range(len(VALUES)))
    summaries = [json.loads((run.folder / SUMMARY).read_text()) for run in bad]
    keys = [(key,) for key in summaries[0]]
    keys += [(key, name) for key in ("data", "environment", "seconds", "best", "config") for name in summaries[0][key]]
    for key in keys:
        for run, summary, value in zip(bad, summaries, VALUES, strict=True):
            part = value if len(key) == 1 else {**summary[key[0]], key[1]: value}
            (run.folder / SUMMARY).write_text(json.dumps({**summary, key[0]: part}))
        records = find_records([tmp_path / "runs"])
        assert good.folder in [run.folder for run in records.runs]
        assert len(records.runs) + len(records.messages) > len(VALUES), key
        try:
            make_report(compare(records), tmp_path)
        except UserError:
            assert key in [("data",), ("data", "classes")]  # other classes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("summary.json", ""),
        ("summary.json", "{"),
        ("summary.json", "[1]"),
        ("summary.json", "[" * 100_000),
        ("summary.json", "\0" * 100),
        ("history.csv", ""),
        ("history.csv", "epoch\n"),
        ("history.csv", "epoch,val_acc\n1,0."),
        ("history.csv", "a,b\n1,2\n3,4\n"),
    ],
)
def test_a_damaged_file_excludes_its_record(make_run, tmp_path, name, text):
    make_run()
    (make_run().folder / name).write_text(text)
    records = find_records([tmp_path])
    assert len(records.runs) == 1
    assert any(str(tmp_path / "runs/2") in message for message in records.messages)


def test_another_schema_is_refused_with_both_versions(make_run):
    run = make_run()
    rewrite(run.folder, schema=99)
    with pytest.raises(UnreadableRecordError, match="99"):
        read_run(run.folder)


def test_a_killed_run_may_have_one_epoch_more_than_its_summary(make_run):
    run = make_run(status="running")
    rewrite(run.folder, epochs=1)
    assert read_run(run.folder).epochs == 2
    rewrite(run.folder, status="completed")
    with pytest.raises(UnreadableRecordError):
        read_run(run.folder)


def test_missing_jobs_and_damaged_sweeps_are_reported(make_run, tmp_path):
    make_run()
    sweep = {"overrides": [], "sweeper": {}, "jobs": 4, "swept": ["optimizer"], "tuned": [], "winners": {}}
    (tmp_path / "runs/sweep.json").write_text(json.dumps(sweep))
    records = find_records([tmp_path])
    assert records.sweeps[0].swept == ["optimizer"]
    assert "3 of 4" in records.messages[0]
    for text in ("", "{", json.dumps({**sweep, "swept": 3}), json.dumps({**sweep, "arms": {"a": 1}})):
        (tmp_path / "runs/sweep.json").write_text(text)
        records = find_records([tmp_path])
        assert (len(records.runs), records.sweeps) == (1, [])
        assert "sweep.json" in records.messages[0]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_without_permission_is_reported(make_run, tmp_path):
    make_run()
    (tmp_path / "locked").mkdir(mode=0)
    assert str(tmp_path / "locked") in find_records([tmp_path]).messages[0]


def test_differing_keys_and_their_short_form(make_run):
    one = make_run("adam", settings={"scheduler": {"factor": 0.5}}, facts={"choices": {"scheduler": "plateau"}})
    two = make_run("sgd", settings={"scheduler": {"T_max": 9}}, facts={"choices": {"scheduler": "cosine"}})
    assert differing_keys([one, two]) == ["scheduler.T_max", "scheduler.factor"]
    assert shorten_keys(["scheduler.T_max", "scheduler.factor"], [one, two]) == ["scheduler"]


def test_one_batch_is_not_all_batches(make_run):
    runs = [make_run(settings={"trainer.limit_train_batches": limit}) for limit in (1, 1.0)]
    assert differing_keys(runs) == ["trainer.limit_train_batches"]


def test_soft_labels_are_part_of_the_data(make_run):
    data = {"fingerprint": {"train": "a" * 64, "validation": "b" * 64}, "soft_labels": "d" * 64}
    assert differing_keys([make_run(facts={"data": data, "confusion": None}), make_run()]) == ["data.fingerprint"]
