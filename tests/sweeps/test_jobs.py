import pytest
from omegaconf import OmegaConf

from fer_exp.config.schema import plain
from fer_exp.errors import UserError
from fer_exp.files import DRAFT
from fer_exp.runs.record import RunRecord
from fer_exp.runs.sweep_record import read_sweep, write_sweep
from fer_exp.sweeps.jobs import SweepCallback, check_sweep_dir, close_sweep, duplicate_job, plan_sweep

BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@pytest.mark.parametrize(
    ("overrides", "params", "jobs", "swept"),
    [
        (["optimizer=adam,sgd", "seed=0,1,2", "data=folders"], None, 6, ["optimizer"]),
        (["seed=range(5)"], None, 5, []),
        (["optimizer.lr=1e-3,1e-2", "+model.width=choice(1,2)"], {"seed": "0,1"}, 8, ["optimizer.lr", "model.width"]),
        (["optimizer=adam"], None, 1, []),
        (["optimizer=glob(*)"], None, None, ["optimizer"]),
    ],
)
def test_jobs_and_swept_keys_are_predicted(overrides, params, jobs, swept):
    hydra = {"sweeper": {"_target_": BASIC_SWEEPER, "params": params}, "overrides": {"task": overrides}}
    assert plan_sweep(OmegaConf.create({"hydra": hydra})) == (jobs, swept)
    hydra["sweeper"]["_target_"] = "hydra_plugins.hydra_optuna_sweeper.OptunaSweeper"
    assert plan_sweep(OmegaConf.create({"hydra": hydra}))[0] is None


def test_a_sweep_takes_a_new_folder_or_its_own(tmp_path):
    sweeper = {"_target_": BASIC_SWEEPER, "max_batch_size": None}
    assert check_sweep_dir(tmp_path / "new", ["seed=0,1"], sweeper)
    own = tmp_path / "own"
    write_sweep(own, overrides=["seed=0,1"], sweeper=sweeper, jobs=2, swept=[])
    (own / ".hydra").mkdir()
    (own / f".sweep.json.1{DRAFT}").write_text("")  # killed while it was written
    assert check_sweep_dir(own, ["seed=0,1,2"], sweeper)  # no job had started
    RunRecord(own / "0", {}).finish("completed", 1.0)
    assert not check_sweep_dir(own, ["seed=0,1"], sweeper)
    with pytest.raises(UserError, match="seed=0,1"):
        check_sweep_dir(own, ["seed=0,1,2"], sweeper)
    with pytest.raises(UserError, match=r"hydra\.sweeper"):
        check_sweep_dir(own, ["seed=0,1"], {**sweeper, "max_batch_size": 4})
    (tmp_path / "files").mkdir()
    (tmp_path / "files/thesis.txt").write_text("")
    with pytest.raises(UserError, match="other files"):
        check_sweep_dir(tmp_path / "files", ["seed=0,1"], sweeper)


def test_duplicate_jobs_are_found(composed, tmp_path):
    for job, override in enumerate(["optimizer.lr=0.1", "optimizer.lr=0.2"]):
        config = plain(composed(override, f"output_dir={tmp_path}/{job}"))
        RunRecord(tmp_path / str(job), {"config": config}).finish("completed", 1.0)
    assert duplicate_job(composed("optimizer.lr=0.2"), tmp_path, 2) == 1
    assert duplicate_job(composed("optimizer.lr=0.2"), tmp_path, 1) is None
    assert duplicate_job(composed("optimizer.lr=0.3"), tmp_path, 2) is None


def test_a_sweep_replaces_the_record_of_a_refused_study(tmp_path):
    write_sweep(tmp_path, overrides=["+study=optimizers"], tuned=["optimizer.lr"], arms={"adam": [0, 1]})
    hydra = {
        "sweep": {"dir": str(tmp_path)},
        "overrides": {
            "task": ["model=vgg,vgg_small"],
            "hydra": ["hydra.sweep.dir=x", "hydra/launcher=joblib", "hydra.mode=MULTIRUN"],
        },
        "runtime": {
            "config_sources": [{"path": "/conf", "provider": "main"}, {"path": "/own", "provider": "command-line"}]
        },
        "sweeper": {"_target_": BASIC_SWEEPER},
        "launcher": {"_target_": "x.BasicLauncher"},
    }
    try:
        SweepCallback().on_multirun_start(OmegaConf.create({"hydra": hydra}))
    finally:
        close_sweep(1)
    sweep = read_sweep(tmp_path)
    assert (sweep.jobs, sweep.swept, sweep.tuned, sweep.arms) == (2, ["model"], [], {})
    assert sweep.options == ["--config-dir=/own", "hydra/launcher=joblib"]
