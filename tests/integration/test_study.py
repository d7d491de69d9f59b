"""A study, and launchers that run jobs in other processes."""

import pytest

from fer_exp.runs.record import read_summary
from fer_exp.training.hardware import available_cores

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture
def quick(faces) -> tuple[str, ...]:
    """Settings of a run of a second: two steps, one epoch."""
    return (
        "data=folders", f"data.root={faces}", "data.batch_size=10", "logger=none", "trainer.max_epochs=1",
        "trainer.limit_train_batches=2", "trainer.precision=32-true", "model=vgg_small", "model.widths=[4,4,4,4]",
    )  # fmt: skip


@pytest.mark.slow
def test_a_study_compares_runs_with_new_seeds(command, quick, tmp_path):
    budget = (
        "hydra.sweeper.trials=2", "hydra.sweeper.seeds=2", "~hydra.sweeper.arms.rmsprop",
        "hydra.sweeper.val_fraction=0.2",
    )  # fmt: skip
    status, printed = command("-m", "+study=optimizers", "hydra.sweep.dir=study", *budget, *quick)
    assert status == 0, printed
    summaries = [read_summary(tmp_path / "study" / str(job)) for job in range(8)]
    trials, finals = summaries[:4], summaries[4:]
    # Trials are validated on training images, the winners' runs on the validation folder.
    assert {t["data"]["train"] + t["data"]["validation"] for t in trials} == {70}
    assert {(f["data"]["train"], f["data"]["validation"]) for f in finals} == {(70, 35)}
    fingerprints = [{s["data"]["fingerprint"]["validation"] for s in group} for group in (trials, finals)]
    assert len(fingerprints[1]) == 1
    assert not fingerprints[0] & fingerprints[1]
    assert [(t["choices"]["optimizer"], t["seed"]) for t in trials] == [("adam", 0)] * 2 + [("sgd", 0)] * 2
    assert [(f["choices"]["optimizer"], f["seed"]) for f in finals] == [
        ("adam", 1), ("adam", 2), ("sgd", 1), ("sgd", 2),
    ]  # fmt: skip
    # A fixed budget: nothing stops a run early or reduces its learning rate.
    assert all(s["config"]["callbacks"]["early_stopping"] is None for s in summaries)
    assert all(not s["config"].get("scheduler") for s in summaries)
    assert "Jobs: 8 completed." in printed
    # The command of the report repeats the budget.
    report = (tmp_path / "study/comparison.md").read_text()
    assert all(override in report.partition("## Command")[2] for override in budget)


def test_a_study_without_m_is_refused(command, tmp_path):
    status, printed = command("+study=optimizers")
    assert status == 1
    assert "-m" in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
        ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"),
    ],
    ids=["joblib", "submitit_local"],
)
def test_parallel_jobs_share_the_cores_and_are_reported(child, quick, tmp_path, launcher):
    sweep = ("-m", "optimizer=adam,sgd", "hydra.sweep.dir=swept", "data.in_memory=false", *launcher, *quick)
    result = child("-m", "fer_exp.train", *sweep, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    summaries = [read_summary(tmp_path / "swept" / job) for job in "01"]
    assert [(s["choices"]["optimizer"], s["status"]) for s in summaries] == [
        ("adam", "completed"),
        ("sgd", "completed"),
    ]
    assert {s["environment"]["threads"] for s in summaries} == {max(1, available_cores() // 2)}
    for job in "01":
        assert result.stdout.count(f"Job {job} (") == 1
    assert "of 2 done" in result.stdout
    assert "Jobs: 2 completed." in result.stdout
