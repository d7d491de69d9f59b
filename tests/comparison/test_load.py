import json
import math
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_exp.comparison.load import differing_keys, find_runs, in_short, natural, read_run
from fer_exp.errors import UserError
from fer_exp.runs.sweep_record import write_sweep

RESULTS = Path(__file__).parents[2] / "docs/results"


def rewrite(folder, **changes):
    """Change keys of a summary; None takes one away."""
    path = folder / "summary.json"
    summary = {key: value for key, value in {**json.loads(path.read_text()), **changes}.items() if value is not None}
    path.write_text(json.dumps(summary))


def make_older(folder):
    """Make a record into one of schema 1: its configuration lies in .hydra/ alone."""
    summary = json.loads((folder / "summary.json").read_text())
    hydra = {"hydra": {"runtime": {"choices": {**summary["choices"], "experiment": None, "hydra/launcher": "basic"}}}}
    (folder / ".hydra").mkdir()
    (folder / ".hydra/config.yaml").write_text(yaml.safe_dump(summary["config"]))
    (folder / ".hydra/hydra.yaml").write_text(yaml.safe_dump(hydra))
    rewrite(folder, schema=1, config=None, choices=None, started=None, updated=None)


def put(run, folder):
    """Move a record."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    run.folder.rename(folder)
    return folder


def test_a_record_is_read(make_run):
    run = make_run("sgd_nesterov", 7, (0.3, 0.6, 0.5), settings={"optimizer.lr": 0.05, "optimizer.betas": [0.9, 0.99]})
    assert (run.status, run.seed, run.epochs, run.counts, run.held_out) == ("completed", 7, 3, True, False)
    assert run.choices == {"optimizer": "sgd_nesterov", "model": "notebook_cnn"}
    assert run.has_config
    assert run.settings["optimizer.lr"] == 0.05
    assert run.settings["optimizer.betas"] == "[0.9, 0.99]"
    assert run.settings["data.fingerprint"] == f"{'a' * 12}/{'b' * 12}"
    assert run.settings["precision"] == "32-true"
    assert not {"seed", "output_dir", "data.root", "data.seed", "trainer.precision"} & set(run.settings)
    assert run.history["val_acc"].tolist() == [0.3, 0.6, 0.5]
    assert run.train_seconds == 90


def test_value_finds_choices_settings_and_facts(make_run):
    run = make_run("sgd", 3, settings={"optimizer.lr": 0.1, "trainer.max_epochs": 9})
    assert run.value("optimizer") == "sgd"
    assert run.value("optimizer.lr") == 0.1
    assert run.value("trainer.max_epochs") == 9
    assert run.value("seed") == 3
    assert run.value("data.root") == "/faces"
    assert run.value("environment.versions.torch") == "2"
    assert run.value("trainer.precision") == "32-true"  # what "auto" came to
    assert run.value("trainer.accelerator") == "a processor"
    assert run.value("scheduler") is None
    assert run.value("optimizer.lrr") is None


def test_figures_are_those_of_the_best_and_of_the_last_epoch(make_run):
    run = make_run(val_acc=(0.3, 0.6, 0.6, 0.5), val_loss=[1.5, 1.2, 1.1, 1.3])
    assert (run.figure("best", "val_acc"), run.figure("final", "val_acc")) == (0.6, 0.5)
    assert (run.figure("best", "val_loss"), run.figure("final", "val_loss")) == (1.2, 1.3)
    assert run.figure("best", "val_macro_f1") == pytest.approx(0.5)
    assert run.best_epoch == 2


def test_soft_labels_count_by_what_they_say(make_run):
    def fingerprint(soft_labels):
        facts = {"data": {"fingerprint": {"train": "a" * 64, "validation": "b" * 64}, "soft_labels": soft_labels}}
        return make_run(facts=facts).settings["data.fingerprint"]

    assert fingerprint(None) == f"{'a' * 12}/{'b' * 12}"
    assert fingerprint("d" * 64) == f"{'a' * 12}+{'d' * 12}/{'b' * 12}"


def test_a_diverged_run_is_read_with_its_nan(make_run):
    run = make_run(val_acc=(0.3, 0.14), status="diverged", train_loss=[1.7, math.nan], val_loss=[1.7, math.nan])
    assert run.counts
    assert np.isnan(run.history["val_loss"]).tolist() == [False, True]
    for measure in ("best", "final"):  # as it ended, whatever it had reached before
        assert run.figure(measure, "val_acc") == 0.14
        assert run.figure(measure, "val_loss") == math.inf
    assert run.best_epoch == 2
    assert run.to_target(0.3)["epochs"] == math.inf


def test_a_figure_that_is_lost_is_the_worst_there_is_and_not_the_best(make_run):
    lost = [math.nan]
    run = make_run(val_acc=(0.14,), status="diverged", val_loss=lost, train_loss=lost, val_macro_f1=lost)
    assert run.figure("best", "val_acc") == 0.14  # no epoch was sound: as the lost network ended
    assert run.figure("best", "val_loss") == math.inf
    assert run.figure("best", "val_macro_f1") == 0


def test_time_to_target_counts_training_alone(make_run):
    run = make_run(val_acc=(0.3, 0.5, 0.4, 0.6), train_seconds=[10.0, 20.0, 30.0, 40.0])
    assert run.to_target(0.5) == {"epochs": 2, "steps": 20, "seconds": 30}
    assert run.to_target(0.51) == {"epochs": 4, "steps": 40, "seconds": 100}
    assert run.to_target(0.61) == {"epochs": math.inf, "steps": math.inf, "seconds": math.inf}


def test_an_older_record_says_the_same_as_a_new_one(make_run):
    new, run = make_run("sgd_nesterov"), make_run("sgd_nesterov")
    make_older(run.folder)
    older = read_run(run.folder)
    assert (older.settings, older.choices, older.has_config) == (new.settings, new.choices, True)
    assert older.incidental == new.incidental
    assert older.span is None
    assert differing_keys([older, new]) == []


def test_an_older_record_without_its_choices_goes_by_the_names_of_classes(make_run):
    run = make_run("sgd_nesterov", settings={"trainer.max_epochs": 7})
    make_older(run.folder)
    (run.folder / ".hydra/hydra.yaml").unlink()
    older = read_run(run.folder)
    assert (older.has_config, older.choices, older.value("trainer.max_epochs")) == (True, {}, 7)
    assert older.value("optimizer") == "SGD_NESTEROV"


def test_a_setting_that_older_records_lack_is_no_difference(make_run):
    assert differing_keys([make_run(), make_run(settings={"data.val_fraction": 0.0})]) == []
    assert differing_keys([make_run(), make_run(settings={"data.val_fraction": 0.2})]) == ["data.val_fraction"]


def test_published_results_without_their_configuration_are_read():
    runs, notes = find_runs([RESULTS])
    by_name = {run.folder.name: run for run in runs}
    run = by_name["fer2013_notebook_rmsprop"]
    assert notes == []
    assert not run.has_config
    assert (run.value("optimizer"), run.value("optimizer.alpha"), run.value("model")) == ("RMSprop", 0.9, "NotebookCNN")
    assert run.figure("best", "val_acc") == pytest.approx(0.5681, abs=1e-4)
    assert (run.epochs, run.settings["precision"]) == (8, "bf16-mixed")
    assert run.told("trainer.max_epochs") == "not recorded"
    assert run.told("optimizer.alpha") == 0.9


def test_folders_are_read_in_their_natural_order(make_run, tmp_path):
    for name in ("10", "2", "1", "b", "a1"):
        put(make_run(), tmp_path / "sweep" / name)
    runs, notes = find_runs([tmp_path / "sweep"])
    assert [run.folder.name for run in runs] == ["1", "2", "10", "a1", "b"]
    assert notes == []


def test_natural_order_takes_any_name():
    names = ["²", "lr²", "x10y2", "x10y10", "x2", "X", "٣", "7", ""]
    assert sorted(names, key=natural).index("x2") < sorted(names, key=natural).index("x10y2")
    assert sorted(["x10y10", "x10y2"], key=natural) == ["x10y2", "x10y10"]


def test_a_run_reached_twice_counts_once(make_run, tmp_path):
    first = put(make_run(seed=0), tmp_path / "sweep/0")
    put(make_run(seed=1), tmp_path / "sweep/1")
    other = tmp_path / "other"
    other.mkdir()
    (other / "linked_run").symlink_to(first, target_is_directory=True)
    (other / "linked_sweep").symlink_to(tmp_path / "sweep", target_is_directory=True)
    places = [first, tmp_path / "sweep", other, tmp_path / "sweep/../sweep", tmp_path]
    runs, _ = find_runs(places)
    assert sorted(run.seed for run in runs) == [0, 1]
    assert [run.seed for run in find_runs([other])[0]] == [0, 1]


def test_links_in_a_circle_end(make_run, tmp_path):
    folder = put(make_run(), tmp_path / "sweep/0").parent
    for name in ("again", "and_again", "and_once_more"):
        (folder / name).symlink_to(folder, target_is_directory=True)
    assert len(find_runs([tmp_path])[0]) == 1


def test_what_is_told_of_a_folder_is_told_once(make_run, tmp_path):
    sweep = put(make_run(), tmp_path / "sweep/0").parent
    write_sweep(sweep, overrides=["seed=0,1,2"], jobs=3)
    put(make_run(), sweep / "x")
    (sweep / "x/summary.json").write_text("{")
    (sweep / "0/summary.json").rename(sweep / "0/old")
    put(make_run(), sweep / "nested/1")
    assert len(find_runs([sweep, sweep, tmp_path])[1]) == 2


def test_a_folder_that_may_not_be_read_is_told_of(make_run, tmp_path, monkeypatch):
    put(make_run(), tmp_path / "sweep/0")
    closed = tmp_path / "sweep/closed"
    closed.mkdir()
    scandir = os.scandir

    def forbid(path):
        if str(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbid)
    runs, notes = find_runs([tmp_path / "sweep"])
    assert len(runs) == 1
    assert notes == [f"{closed}: the folder cannot be read (Permission denied) and is left out."]


def test_runs_below_a_runs_folder_are_not_looked_for(make_run):
    run = make_run()
    shutil.copytree(run.folder, run.folder / "checkpoints/copy")
    assert [r.folder for r in find_runs([run.folder])[0]] == [run.folder]


def broken_json(folder):
    (folder / "summary.json").write_text('{"schema": 2, "sta')


def not_text(folder):
    (folder / "summary.json").write_bytes(b"\xff\xfe\x00")


def half_a_history(folder):
    lines = (folder / "history.csv").read_text().splitlines()
    (folder / "history.csv").write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:8])


def zeros_in_the_history(folder):
    (folder / "history.csv").write_bytes((folder / "history.csv").read_bytes() + b"\0" * 50)


def no_history(folder):
    (folder / "history.csv").unlink()


def history_of_another_run(folder):
    lines = (folder / "history.csv").read_text().splitlines()
    (folder / "history.csv").write_text("\n".join(lines[:-1]) + "\n")


def other_columns(folder):
    (folder / "history.csv").write_text("epoch,loss\n1,0.5\n2,0.4\n")


def history_of_as_many_epochs(folder):
    text = (folder / "history.csv").read_text()
    (folder / "history.csv").write_text(text.replace("0.5", "0.6"))


def no_end_of_file(folder):
    (folder / "history.csv").write_text((folder / "history.csv").read_text()[:-2])


def older_with_configuration_that_is_no_text(folder):
    make_older(folder)
    (folder / ".hydra/config.yaml").write_bytes(b"\xff\xfe\x00")


def older_with_odd_choices(folder):
    make_older(folder)
    (folder / ".hydra/hydra.yaml").write_text("hydra: [runtime]")


def older_with_half_its_configuration(folder):
    make_older(folder)
    (folder / ".hydra/config.yaml").write_text("optimizer: {lr: 0.1")


def older_with_empty_configuration(folder):
    make_older(folder)
    (folder / ".hydra/config.yaml").write_text("")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (broken_json, "Unterminated string"),
        (not_text, "decode"),
        (half_a_history, ""),
        (zeros_in_the_history, ""),
        (no_history, "history.csv has 0 epochs, and summary.json says 2"),
        (history_of_another_run, "history.csv has 1 epochs, and summary.json says 2"),
        (other_columns, "'step' is missing"),
        (older_with_half_its_configuration, "flow mapping"),
        (older_with_empty_configuration, "config.yaml holds no configuration"),
        (lambda folder: (folder / "summary.json").write_text("[1]"), "summary.json holds no mapping"),
        (lambda folder: (folder / "summary.json").write_text(""), "summary.json is empty"),
        (lambda folder: (folder / "summary.json").write_text("[" * 100_000), "summary.json is nested too deeply"),
        (lambda folder: (folder / "history.csv").write_text(""), "history.csv ends in the middle of a line"),
        (history_of_as_many_epochs, "history.csv is not the one that summary.json was written with"),
        (no_end_of_file, "history.csv ends in the middle of a line"),
        (older_with_configuration_that_is_no_text, "decode"),
        (older_with_odd_choices, ""),
        (lambda folder: rewrite(folder, schema=None), "not that of a run"),
        (lambda folder: rewrite(folder, schema=3), "its schema is 3, and this version knows up to 2"),
        (lambda folder: rewrite(folder, epochs=None, status=None), "summary.json lacks status, epochs"),
        (lambda folder: rewrite(folder, seed=None), "summary.json lacks seed"),
        (lambda folder: rewrite(folder, seed="zero"), "its seed is 'zero', which is of the wrong kind"),
        (lambda folder: rewrite(folder, seed=math.inf), "its seed is inf"),
        (lambda folder: rewrite(folder, best={"val_acc": "high"}), "its val_acc is 'high'"),
        (lambda folder: rewrite(folder, seconds={"total": [1]}), "its total is [1]"),
        (lambda folder: rewrite(folder, choices={"optimizer": ["adam"]}), "its choices are"),
        (lambda folder: rewrite(folder, environment={"precision": ["32"]}), "its precision is ['32']"),
        (lambda folder: rewrite(folder, status="done"), "its status is done; expected one of running, completed"),
        (lambda folder: rewrite(folder, started="yesterday"), "yesterday"),
        (lambda folder: rewrite(folder, config="adam"), ""),
        (lambda folder: rewrite(folder, data="faces"), ""),
    ],
)
def test_a_spoilt_record_is_told_of_and_left_out(make_run, spoil, reason):
    sound, spoilt = make_run(), make_run()
    spoil(spoilt.folder)
    runs, notes = find_runs([sound.folder, spoilt.folder])
    assert [run.folder for run in runs] == [sound.folder]
    assert len(notes) == 1
    assert notes[0].startswith(f"{spoilt.folder}: the record cannot be read (")
    assert notes[0].endswith(") and is left out.")
    assert reason in notes[0]


@pytest.mark.parametrize("name", ["summary.json", "history.csv"])
def test_a_damaged_record_is_left_out_or_tells_what_was_written(make_run, name):
    run = make_run(val_acc=(0.3, 0.6, 0.5), train_loss=[1.5, 1.25, math.nan], status="diverged")
    written = {column: values.tolist() for column, values in run.history.items()}
    whole = (run.folder / name).read_bytes()
    place = st.integers(0, len(whole))
    damaged = st.one_of(
        place.map(lambda end: whole[:end]),
        st.tuples(place, st.integers(0, 8), st.binary(max_size=8) | st.from_regex(rb"[0-9.,:{\n]{1,3}")).map(
            lambda cut: whole[: cut[0]] + cut[2] + whole[cut[0] + cut[1] :]
        ),
    )

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(content=damaged)
    def holds(content):
        (run.folder / name).write_bytes(content)
        try:
            (found,), _ = find_runs([run.folder])
        except UserError:
            return
        assert repr({column: values.tolist() for column, values in found.history.items()}) == repr(written)

    holds()


def test_a_record_that_ends_early_is_read(make_run):
    failed = make_run(val_acc=(), status="failed", facts={"environment": {}, "data": {}})
    rewrite(failed.folder, environment=None, data=None)
    run = read_run(failed.folder)
    assert (run.status, run.counts, run.settings["data.fingerprint"]) == ("failed", False, None)
    killed = make_run(val_acc=(0.3, 0.4), status="running")
    rewrite(killed.folder, epochs=1)  # killed between the two files
    assert read_run(killed.folder).epochs == 2
    assert not read_run(killed.folder).counts


@pytest.mark.parametrize(("status", "counts"), [("completed", True), ("diverged", True), ("interrupted", False)])
def test_a_run_counts_if_it_ended_by_itself(make_run, status, counts):
    assert make_run(status=status).counts == counts
    assert not make_run(val_acc=(), status=status).counts


def test_missing_jobs_are_told_of(make_run, tmp_path):
    sweep = put(make_run(), tmp_path / "sweep/0").parent
    (sweep / "1").mkdir()
    write_sweep(sweep, overrides=["seed=0,1,2"], jobs=3)
    _, notes = find_runs([sweep])
    assert notes == [f"{sweep}: 2 of 3 jobs have no record yet; the same command with hydra.sweep.dir={sweep} goes on."]
    for jobs in (1, None):
        write_sweep(sweep, overrides=["seed=0"], jobs=jobs)
        assert find_runs([sweep])[1] == []


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"jobs": "three"}'])
def test_a_spoilt_sweep_is_told_of(make_run, tmp_path, text):
    sweep = put(make_run(), tmp_path / "sweep/0").parent
    (sweep / "sweep.json").write_text(text)
    runs, notes = find_runs([sweep])
    assert len(runs) == len(notes) == 1
    assert f"{sweep / 'sweep.json'} cannot be read" in notes[0]


def test_where_there_is_no_run_it_is_said(make_run, tmp_path):
    with pytest.raises(UserError, match=r"nowhere: there is no such folder; expected a run's folder"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"no run is recorded there \(no summary.json\)"):
        find_runs([tmp_path])
    folder = make_run().folder
    broken_json(folder)
    with pytest.raises(UserError, match="no run is recorded there") as raised:
        find_runs([folder])
    assert f"{folder}: the record cannot be read" in str(raised.value)


def test_differing_keys_are_those_that_the_records_tell(make_run):
    run = make_run(seed=0)
    assert (
        differing_keys([run, make_run(seed=1, settings={"data.root": "/elsewhere", "trainer.precision": "32"})]) == []
    )
    other = make_run(settings={"optimizer.lr": 0.1, "trainer.accumulate_grad_batches": 4})
    assert differing_keys([run, other]) == ["optimizer.lr", "trainer.accumulate_grad_batches"]
    bf16 = make_run(facts={"environment": {"precision": "bf16-mixed"}})
    assert differing_keys([run, bf16]) == ["precision"]
    failed = make_run(val_acc=(), status="failed", facts={"environment": None, "data": None})
    assert differing_keys([run, failed]) == []


def test_a_record_without_configuration_differs_by_what_it_tells(make_run):
    whole, same, other = make_run(), make_run(), make_run(settings={"optimizer.lr": 0.1, "trainer.max_epochs": 99})
    for run in (same, other):
        rewrite(run.folder, schema=1, config=None, choices=None)
    same, other = read_run(same.folder), read_run(other.folder)
    assert not same.has_config
    assert differing_keys([whole, same]) == []
    assert differing_keys([whole, other]) == ["optimizer.lr"]
    assert differing_keys([same, other]) == ["optimizer.lr"]


def test_one_batch_is_not_all_batches(make_run):
    one, all_of_them = (make_run(settings={"trainer.limit_train_batches": limit}) for limit in (1, 1.0))
    assert differing_keys([one, all_of_them]) == ["trainer.limit_train_batches"]


def test_keys_that_a_choice_decides_are_put_in_short(make_run):
    def choosing(scheduler, **settings):
        return make_run(
            settings={"scheduler": settings or None},
            facts={"choices": {"optimizer": "adam", "scheduler": scheduler}},
        )

    none, plateau = choosing("none"), choosing("plateau", factor=0.2, patience=2)
    keys = differing_keys([none, plateau])
    assert keys == ["scheduler.factor", "scheduler.patience"]
    assert in_short(keys, [none, plateau]) == ["scheduler"]
    faster = choosing("plateau", factor=0.5, patience=2)
    keys = differing_keys([none, plateau, faster])
    assert in_short(keys, [none, plateau, faster]) == keys  # the choice does not tell it all


def test_the_span_of_a_run_is_in_utc(make_run):
    run = make_run(facts={"started": "2026-03-01T10:00:00.000+02:00"})
    assert run.span[0] == datetime(2026, 3, 1, 8, tzinfo=UTC)
    rewrite(run.folder, started="2026-03-01T10:00:00")
    assert read_run(run.folder).span[0] == datetime(2026, 3, 1, 10, tzinfo=UTC)


def test_runs_can_be_keys(make_run):
    first, second = make_run(), make_run()
    assert {first: 1, second: 2}[second] == 2
