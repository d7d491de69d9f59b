"""What goes on around the runs of a command."""

import pytest
from omegaconf import OmegaConf

from fer_exp.config.schema import plain
from fer_exp.errors import UserError
from fer_exp.files import DRAFT
from fer_exp.runs.record import RunRecord
from fer_exp.runs.sweep_record import read_sweep, write_sweep
from fer_exp.sweeps.jobs import (
    SweepCallback,
    check_sweep_folder,
    duplicate_job,
    format_job,
    format_seconds,
    jobs_at_once,
    plan_sweep,
)

JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
LOCAL = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"
SLURM = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@pytest.mark.parametrize(
    ("launcher", "jobs", "at_once"),
    [
        ({"_target_": BASIC_LAUNCHER}, 9, 1),
        ({"_target_": JOBLIB, "n_jobs": 4}, 9, 4),
        ({"_target_": JOBLIB, "n_jobs": 4}, 3, 3),
        ({"_target_": JOBLIB, "n_jobs": 4}, None, 4),
        ({"_target_": JOBLIB, "n_jobs": -1}, 9, 8),  # one a core
        ({"_target_": JOBLIB, "n_jobs": -3}, 9, 6),  # all cores but two
        ({"_target_": JOBLIB, "n_jobs": None}, 9, 1),
        ({"_target_": LOCAL}, 9, 9),
        ({"_target_": LOCAL}, None, 1),
        ({"_target_": SLURM, "cpus_per_task": 4}, 9, 1),  # each has cores of its own
    ],
)
def test_jobs_that_share_the_cores_are_counted(launcher, jobs, at_once):
    assert jobs_at_once(launcher, jobs, cores=8) == at_once


@pytest.mark.parametrize(
    ("overrides", "params", "jobs", "swept"),
    [
        (["optimizer=adam,sgd", "seed=0,1,2", "data=folders"], None, 6, ["optimizer"]),
        (["seed=range(5)"], None, 5, []),
        (["optimizer.lr=1e-3,1e-2", "+model.width=choice(1,2)"], {"seed": "0,1"}, 8, ["optimizer.lr", "+model.width"]),
        (["optimizer=adam"], None, 1, []),
        (["optimizer=glob(*)"], None, None, ["optimizer"]),
    ],
)
def test_jobs_and_swept_keys_are_known_before(overrides, params, jobs, swept):
    hydra = {"sweeper": {"_target_": BASIC_SWEEPER, "params": params}, "overrides": {"task": overrides}}
    found = plan_sweep(OmegaConf.create({"hydra": hydra}))
    assert found == (jobs, [key.lstrip("+") for key in swept])
    hydra["sweeper"]["_target_"] = "hydra_plugins.hydra_optuna_sweeper.OptunaSweeper"
    assert plan_sweep(OmegaConf.create({"hydra": hydra}))[0] is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.6, "9 s"), (99, "99 s"), (100, "2 min"), (5399, "90 min"), (6000, "1.7 h"), (36000, "10.0 h")],
)
def test_seconds_are_told_in_the_unit_that_suits(seconds, text):
    assert format_seconds(seconds) == text


def test_a_sweep_s_folder_is_new_or_its_own(tmp_path):
    sweeper = {"_target_": BASIC_SWEEPER, "max_batch_size": None}
    assert check_sweep_folder(tmp_path / "new", ["seed=0,1"], sweeper) is False
    own = tmp_path / "own"
    write_sweep(own, overrides=["seed=0,1"], sweeper=sweeper, jobs=2, swept=[])
    (own / f".sweep.json.1{DRAFT}").write_text("")  # killed while it was written
    assert check_sweep_folder(own, ["seed=0,1,2"], sweeper) is False  # no job had begun: nothing is lost
    RunRecord(own / "0", {}).finish("completed", 1.0)
    assert check_sweep_folder(own, ["seed=0,1"], sweeper) is True
    with pytest.raises(UserError, match=r"holds another sweep \(seed=0,1\)"):
        check_sweep_folder(own, ["seed=0,1,2"], sweeper)
    with pytest.raises(UserError, match=r"holds another sweep \(with other settings of hydra.sweeper, .*null"):
        check_sweep_folder(own, ["seed=0,1"], {**sweeper, "max_batch_size": 4})
    (tmp_path / "files").mkdir()
    (tmp_path / "files/thesis.txt").write_text("")
    with pytest.raises(UserError, match="holds other files"):
        check_sweep_folder(tmp_path / "files", ["seed=0,1"], sweeper)


def test_a_swept_value_that_changes_nothing_is_found(composed, tmp_path):
    for job, override in enumerate(["optimizer.lr=0.1", "optimizer.lr=0.2"]):
        config = plain(composed(override, f"output_dir=somewhere/{job}"))
        RunRecord(tmp_path / str(job), {"config": config}).finish("completed", 1.0)
    assert duplicate_job(composed("optimizer.lr=0.2"), tmp_path, 2) == 1
    assert duplicate_job(composed("optimizer.lr=0.2"), tmp_path, 1) is None
    assert duplicate_job(composed("optimizer.lr=0.3"), tmp_path, 2) is None


def test_the_line_of_a_job_tells_which_what_and_how_long(tmp_path):
    write_sweep(tmp_path, overrides=["data=folders", "seed=0,1,2,3"], jobs=4)
    best = {"epoch": 3, "val_acc": 0.51234}
    RunRecord(tmp_path / "0", {}).finish("completed", 60.0, best=best)
    RunRecord(tmp_path / "1", {}).finish("diverged", 120.0, error="the loss was lost")
    RunRecord(tmp_path / "2", {}).finish("running", 0.0)
    hydra = {"job": {"num": 0}, "overrides": {"task": ["data=folders", "seed=0"]}, "launcher": {"_target_": "x"}}
    assert format_job(tmp_path / "0", tmp_path, OmegaConf.create(hydra)) == (
        "Job 0 (seed=0) completed: best val_acc 0.5123 in epoch 3. 2 of 4 done, about 3 min left."
    )
    hydra["job"]["num"], hydra["launcher"] = 1, {"n_jobs": 2}
    line = format_job(tmp_path / "1", tmp_path, OmegaConf.create(hydra))
    assert line.startswith("Job 1 (seed=0) diverged: the loss was lost.")
    assert line.endswith("left.")


def test_a_sweep_knows_nothing_of_a_study_that_was_refused_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(SweepCallback, "sweep", None)
    write_sweep(tmp_path, overrides=["+study=optimizers"], tuned=["optimizer.lr"], arms={"adam": [0, 1]})
    sweeper = {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"}
    hydra = {"sweep": {"dir": str(tmp_path)}, "overrides": {"task": ["model=vgg,vgg_small"]}, "sweeper": sweeper}
    SweepCallback().on_multirun_start(OmegaConf.create({"hydra": hydra}))
    sweep = read_sweep(tmp_path)
    assert (sweep["jobs"], sweep["swept"], sweep["tuned"], sweep["winners"]) == (2, ["model"], [], {})
    assert "arms" not in sweep
