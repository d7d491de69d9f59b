"""The protocol of the study, with a launcher that writes records without training."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fer_exp.comparison.analysis import compare
from fer_exp.comparison.load import find_records
from fer_exp.errors import UserError
from fer_exp.runs.record import RunRecord
from fer_exp.runs.sweep_record import read_sweep, write_sweep
from fer_exp.sweeps.jobs import note_refusal
from fer_exp.sweeps.study import Study, parse_arm, trial_points

LR = "tag(log, interval(1e-4, 1))"
ARMS = {
    "adam": {"optimizer": "adam", "optimizer.lr": "tag(log, interval(1e-5, 1e-1))"},
    "sgd": {"optimizer": "sgd", "optimizer.lr": LR, "optimizer.momentum": "choice(0, 0.9)"},
}


class Launcher:
    """``outcome(settings)`` is the val_acc of each job, or the status of a run without a result."""

    def __init__(self, folder: Path, outcome) -> None:
        self.folder, self.outcome, self.jobs = folder, outcome, []

    def launch(self, jobs, first):
        self.jobs += jobs
        return [self.run(first + i, settings) for i, settings in enumerate(jobs)]

    def run(self, number, job):
        settings = as_dict(job)
        outcome = self.outcome(settings)
        folder = self.folder / str(number)
        stopping = {"patience": settings.get("callbacks.early_stopping.patience")}
        config = {
            "callbacks": {"early_stopping": stopping if stopping["patience"] else None},
            "data": {"val_fraction": settings["data.val_fraction"]},
            "optimizer": {k.split(".")[1]: v for k, v in settings.items() if k.startswith("optimizer.")},
        }
        record = RunRecord(folder, {"config": config, "seed": settings["seed"]})
        accuracies = [] if outcome == "failed" else [0.9, 1 / 7] if outcome == "diverged" else [outcome / 2, outcome]
        record.write_epochs([row(i, a, outcome == "diverged") for i, a in enumerate(accuracies, 1)])
        record.finish(outcome if isinstance(outcome, str) else "completed", 1.0)
        return SimpleNamespace(hydra_cfg=OmegaConf.create({"hydra": {"runtime": {"output_dir": str(folder)}}}))


def row(epoch, accuracy, diverged):
    loss = math.nan if diverged and epoch == 2 else 1.0
    return {
        "epoch": epoch, "step": epoch, "lr": 0.1, "train_loss": loss, "train_acc": accuracy, "val_loss": loss,
        "val_acc": accuracy, "val_macro_f1": accuracy, "train_seconds": 1.0, "val_seconds": 0.1,
    }  # fmt: skip


def as_dict(job):
    return {o.get_key_element(): o.value() for o in OverridesParser.create().parse_overrides(job)}


@pytest.fixture
def study(tmp_path):
    """Run a study; returns the settings of its trials and of its finals."""

    def run(outcome=lambda settings: 0.5, arguments=("data=folders",), arms=ARMS, trials=4, seeds=3, seed=0, **changes):
        write_sweep(tmp_path)
        study = Study(OmegaConf.create(arms), trials, seeds, val_fraction=0.1, sampler_seed=0)
        study.__dict__ |= changes
        study.config = OmegaConf.create({"seed": seed, "hydra": {"sweep": {"dir": str(tmp_path)}}})
        study.launcher = Launcher(tmp_path, outcome)
        study.validate_batch_is_legal = lambda jobs: None
        study.sweep(list(arguments))
        jobs = [as_dict(job) for job in study.launcher.jobs]
        return [j for j in jobs if j["data.val_fraction"] > 0], [j for j in jobs if j["data.val_fraction"] == 0]

    return run


def test_arms_have_one_budget_and_their_winners_are_trained_on_new_seeds(study, tmp_path):
    trials, finals = study(lambda s: 0.5 - 0.1 * abs(math.log10(s["optimizer.lr"] / 0.01)), seed=5)
    assert [trial["optimizer"] for trial in trials] == ["adam"] * 4 + ["sgd"] * 4
    assert len({t["optimizer.lr"] for t in trials}) > 4
    # Between trials of one arm nothing differs but what its space says.
    for name, varied in (("adam", {"optimizer.lr"}), ("sgd", {"optimizer.lr", "optimizer.momentum"})):
        of_arm = [t for t in trials if t["optimizer"] == name]
        shared = {"data": "folders", "optimizer": name, "data.val_fraction": 0.1, "seed": 5}
        assert all({k: v for k, v in t.items() if k not in varied} == shared for t in of_arm)
        best = min(of_arm, key=lambda t: abs(math.log(t["optimizer.lr"] / 0.01)))
        expected = [best | {"data.val_fraction": 0.0, "seed": seed} for seed in (6, 7, 8)]
        assert [f for f in finals if f["optimizer"] == name] == expected
    sweep = read_sweep(tmp_path)
    assert (sweep.jobs, sweep.swept) == (len(trials) + len(finals), ["optimizer"])
    assert sweep.tuned == ["optimizer.lr", "optimizer.momentum"]


def test_a_diverged_trial_counts_and_does_not_win(study, caplog):
    # It had 0.9 in its first epoch, more than any other; with early stopping the best epoch is what counts.
    stopping = {"callbacks.early_stopping.patience": 3}
    arms = {name: {**arm, **stopping} for name, arm in ARMS.items()}
    trials, finals = study(lambda s: "diverged" if s["optimizer.lr"] > 1e-3 else 0.3, arms=arms)
    assert len(trials) == 8
    assert all(f["optimizer.lr"] <= 1e-3 for f in finals)


def test_an_arm_whose_trials_all_diverged_is_reported(study):
    _, finals = study(lambda s: "diverged" if s["optimizer"] == "sgd" else 0.3)
    assert sorted(f["optimizer"] for f in finals) == ["adam"] * 3 + ["sgd"] * 3


def test_an_arm_without_a_result_is_excluded(study, caplog, tmp_path):
    trials, finals = study(lambda s: "failed" if s["optimizer"] == "adam" else 0.3)
    assert {f["optimizer"] for f in finals} == {"sgd"}
    assert read_sweep(tmp_path).arms == {"adam": [*range(4)], "sgd": [*range(4, 11)]}
    assert [record.message.split(":")[0] for record in caplog.records if record.levelname == "ERROR"] == ["adam"]
    assert read_sweep(tmp_path).jobs == len(trials) + len(finals)
    # If a later attempt has a result, the runs of the other arms stay where they are.
    finals = study(lambda s: 0.3)[1]
    assert [f["optimizer"] for f in finals] == ["sgd"] * 3 + ["adam"] * 3
    assert read_sweep(tmp_path).arms == {"adam": [*range(4), 11, 12, 13], "sgd": [*range(4, 11)]}


def test_a_trial_without_a_record_is_excluded(study, tmp_path, caplog):
    def outcome(settings):
        (tmp_path / "0/summary.json").unlink(missing_ok=True)  # when the second job begins
        return 0.9 if settings["optimizer.lr"] == first else 0.3

    first = as_dict(trial_points(parse_arm("adam", ARMS["adam"]), 4, 0)[0])["optimizer.lr"]
    finals = study(outcome)[1]
    assert str(tmp_path / "0") in caplog.text
    assert sorted(f["optimizer"] for f in finals) == ["adam"] * 3 + ["sgd"] * 3
    assert all(f["optimizer.lr"] != first for f in finals if f["optimizer"] == "adam")


def test_no_winner_is_chosen_if_trials_were_refused(study, tmp_path, capsys):
    def refusing(settings):
        note_refusal(tmp_path, 3)
        return 0.5

    with pytest.raises(SystemExit) as ended:
        study(refusing)
    assert ended.value.code == 1
    assert "1 of the 8 trials" in capsys.readouterr().err
    assert read_sweep(tmp_path).winners == {}


def test_a_choice_is_final(study, tmp_path, caplog):
    first = {}

    def outcome(settings):
        first.setdefault("lr", settings["optimizer.lr"])
        return first.get("retried", "failed") if settings["optimizer.lr"] == first["lr"] else 0.3

    finals = study(outcome)[1]
    caplog.set_level("INFO")
    caplog.clear()
    first["retried"] = 0.9  # now it would win
    assert study(outcome)[1] == finals
    assert all(f["optimizer.lr"] != first["lr"] for f in finals if f["optimizer"] == "adam")
    assert "the best of" not in caplog.text
    tunings = {tuning.label: tuning for tuning in compare(find_records([tmp_path]), ["arm"]).tunings}
    assert tunings["adam"].winner.value("optimizer.lr") == finals[0]["optimizer.lr"]


def test_arms_with_the_same_fixed_settings(study, tmp_path):
    tuned = {"optimizer": "sgd", "optimizer.lr": LR}
    arms = {
        "low": {**tuned, "optimizer.lr": "interval(0.001, 0.01)"},
        "high": tuned,
        "default": {**tuned, "optimizer.lr": 0.01},
    }
    trials, finals = study(lambda s: 0.3 + s["optimizer.lr"] / 10, arms=arms, trials=3, seeds=2)
    sweep = read_sweep(tmp_path)
    assert (sweep.swept, sweep.tuned) == (["optimizer"], ["optimizer.lr"])
    assert sweep.arms == {"low": [0, 1, 2, 9, 10], "high": [3, 4, 5, 11, 12], "default": [6, 7, 8, 13, 14]}
    comparison = compare(find_records([tmp_path]), ["arm"])
    assert {group.label for group in comparison.groups} == {*arms}
    chosen = {tuning.label: tuning.winner.value("optimizer.lr") for tuning in comparison.tunings}
    assert chosen == {
        "low": max(trial["optimizer.lr"] for trial in trials[:3]),
        "high": max(trial["optimizer.lr"] for trial in trials[3:6]),
        "default": 0.01,
    }
    assert [final["optimizer.lr"] for final in finals] == [chosen[arm] for arm in arms for _ in range(2)]
    assert all(group.test.n == 2 for group in comparison.tested)


def test_a_winner_at_the_end_of_its_range_is_warned_about(study, caplog):
    caplog.set_level("INFO")
    study(lambda s: min(0.9, s["optimizer.lr"] ** 0.1))
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2
    assert all("optimizer.lr" in warning for warning in warnings)


def test_points_are_spread_evenly_on_a_log_scale():
    points = trial_points(parse_arm("sgd", {"optimizer": "sgd", "optimizer.lr": LR}), 64, 0)
    logs = sorted(math.log10(as_dict(point)["optimizer.lr"]) for point in points)
    assert -4 <= logs[0] < -3.8
    assert -0.2 < logs[-1] <= 0
    # Of a low-discrepancy sequence each quarter of the range has a quarter of the points.
    assert [sum(low <= x < low + 1 for x in logs) for low in (-4, -3, -2, -1)] == pytest.approx([16] * 4, abs=1)


def test_points_depend_on_the_seed_only():
    arm = parse_arm("sgd", ARMS["sgd"])
    assert trial_points(arm, 5, 0) == trial_points(arm, 5, 0) != trial_points(arm, 5, 1)
    assert trial_points(arm, 9, 0)[:5] == trial_points(arm, 5, 0)
    assert {as_dict(point)["optimizer.momentum"] for point in trial_points(arm, 9, 0)} == {0, 0.9}


def test_points_of_narrow_intervals():
    points = trial_points(parse_arm("a", {"optimizer.momentum": "interval(0.9, 0.9999)"}), 50, 0)
    values = [float(text.partition("=")[2]) for (text,) in points]
    assert len(set(values)) == 50
    assert all(0.9 <= value <= 0.9999 for value in values)
    (narrow,) = {text for (text,) in trial_points(parse_arm("a", {"b": "tag(log, interval(1.2341, 1.2342))"}), 9, 0)}
    assert narrow in ("b=1.2341", "b=1.2342")


def test_an_interval_of_integers_gives_integers():
    points = trial_points(parse_arm("a", {"data.batch_size": "int(interval(16, 128))"}), 20, 0)
    sizes = [as_dict(point)["data.batch_size"] for point in points]
    assert all(isinstance(size, int) and 16 <= size <= 128 for size in sizes)
    assert len(set(sizes)) > 15


def test_an_arm_without_a_search_space():
    assert trial_points(parse_arm("sgd", {"optimizer": "sgd", "scheduler": None}), 2, 0) == [
        ["optimizer=sgd", "scheduler=null"], ["optimizer=sgd", "scheduler=null"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arguments": ["seed=0,1"]}, "seed=0,1: "),
        ({"arguments": ["optimizer=adam"]}, "optimizer=adam: "),
        ({"arguments": ["data.val_fraction=0.2"]}, "data.val_fraction=0.2: "),
        ({"arms": {"a": {"optimizer": "adam", "seed": 7}}}, "arms.a: the study sets seed"),
        ({"arms": {"a": {"data.val_fraction": 0.3}}}, "arms.a: the study sets data.val_fraction"),
        ({"trials": 0}, "hydra.sweeper.trials=0: "),
        ({"seeds": 0}, "hydra.sweeper.seeds=0: "),
        ({"seed": "abc"}, "seed=abc: "),
        ({"seed": 2**32 - 3}, "seed=4294967293: "),
        ({"val_fraction": 0}, "hydra.sweeper.val_fraction=0: "),
        ({"arms": {}}, "hydra.sweeper.arms is empty"),
        (
            {"arms": {"a": {"optimizer.lr": "interval(1, 0)"}}},
            "optimizer.lr=interval(1, 0): expected interval(LOW, HIGH) with LOW below HIGH",
        ),
        ({"arms": {"a": {"optimizer.lr": "tag(lg, interval(0.1, 1))"}}}, "expected no tag but log"),
        (
            {"arms": {"a": {"optimizer.lr": "shuffle(1, 2)"}}},
            "optimizer.lr=shuffle(1, 2): expected interval(LOW, HIGH)",
        ),
        ({"arms": {"a": {"optimizer.lr": "interval(1, 2"}}}, "hydra.sweeper.arms.a: "),
        ({"arms": {"a": {"optimizer": "glob(*)"}}}, "optimizer=glob(*): expected interval(LOW, HIGH)"),
        ({"arms": {"a": {"optimizer.lr": "tag(log, interval(0, 1))"}}}, "expected LOW above 0 for tag(log"),
    ],
    ids=str,
)
def test_unsuitable_settings_are_refused(study, capsys, changes, said):
    with pytest.raises(SystemExit) as exit_:
        study(**changes)
    assert exit_.value.code == 1
    assert said in capsys.readouterr().err


def test_search_spaces_are_checked():
    with pytest.raises(UserError, match="LOW below HIGH"):
        parse_arm("a", {"optimizer.lr": "interval(1, 1)"})
