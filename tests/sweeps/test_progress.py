import pytest

from fer_exp.runs.record import RunRecord, read_summary
from fer_exp.runs.sweep_record import write_sweep
from fer_exp.sweeps import progress
from fer_exp.sweeps.progress import JobReporter, format_job, job_statuses, parallel_jobs

JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
LOCAL = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"
SLURM = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
ROW = {
    "epoch": 1, "step": 1, "lr": 0.1, "train_loss": 1.0, "val_loss": 1.0, "val_acc": 0.51234,
    "train_seconds": 1.0, "val_seconds": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("launcher", "jobs", "parallel"),
    [
        ({"_target_": BASIC}, 9, 1),
        ({"_target_": JOBLIB, "n_jobs": 4}, 9, 4),
        ({"_target_": JOBLIB, "n_jobs": 4}, 3, 3),
        ({"_target_": JOBLIB, "n_jobs": 4}, None, 4),
        ({"_target_": JOBLIB, "n_jobs": -1}, 9, 8),
        ({"_target_": JOBLIB, "n_jobs": -3}, 9, 6),
        ({"_target_": JOBLIB, "n_jobs": None}, 9, 1),
        ({"_target_": LOCAL}, 9, 9),
        ({"_target_": LOCAL}, None, 1),
        ({"_target_": SLURM, "cpus_per_task": 4}, 9, 1),  # each job has its own cores
    ],
)
def test_number_of_jobs_that_share_the_cores(launcher, jobs, parallel):
    assert parallel_jobs(launcher, jobs, cores=8) == parallel


@pytest.fixture
def sweep(tmp_path):
    """A sweep of four jobs; ``sweep(0, "completed", 60.0)`` writes the record of one."""
    write_sweep(tmp_path, overrides=["optimizer=adam,sgd", "seed=0,1"], jobs=4, swept=["optimizer", "optimizer.lr"])

    def job(number, status, seconds, epochs=1):
        config = {"optimizer": {"lr": 0.5}, "seed": 0}
        record = RunRecord(
            tmp_path / str(number), {"config": config, "choices": {"optimizer": "sgd"}, "monitor": "val_acc"}
        )
        record.write_epochs([ROW] * epochs)
        record.finish(status, seconds, error="loss is NaN" if status == "diverged" else None)
        return tmp_path / str(number), read_summary(tmp_path / str(number))

    return job


def test_line_of_an_ended_job(sweep, tmp_path):
    first = sweep(0, "completed", 60.0)
    second = sweep(1, "diverged", 120.0, epochs=0)
    sweep(2, "running", 0.0)
    line = format_job(*first, tmp_path, {"_target_": BASIC})
    assert "Job 0 (optimizer=sgd optimizer.lr=0.5 seed=0) completed" in line
    assert "val_acc 51.23 %" in line
    assert "2 of 4" in line
    assert "3 min" in line
    assert "loss is NaN" in format_job(*second, tmp_path, {"n_jobs": 2})


def test_each_ended_job_is_reported_once(sweep, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.01)
    caplog.set_level("INFO")
    sweep(0, "completed", 1.0)  # in an earlier attempt
    reporter = JobReporter(tmp_path, {"_target_": LOCAL})
    reporter.start()
    sweep(1, "running", 0.0)
    sweep(1, "completed", 1.0)
    (tmp_path / "3").mkdir()
    (tmp_path / "3/summary.json").write_text("{")
    sweep(2, "failed", 1.0)
    reporter.stop()
    assert sorted(line.split()[1] for line in caplog.messages) == ["1", "2"]


def test_damaged_records_are_no_results(sweep, tmp_path):
    for number, status in enumerate(["completed", "completed", "completed", "running", "failed"]):
        sweep(number, status, 1.0)
    (tmp_path / "0/history.csv").write_text("epoch\n")
    (tmp_path / "1/summary.json").write_text("")
    assert list(job_statuses(tmp_path)) == ["damaged", "damaged", "completed", "unfinished", "failed"]
