"""A study, and sweeps on launchers that run jobs in processes of their own."""

import pytest

from fer_exp.data.sources.class_folders import ClassFolders, FolderDataModule
from fer_exp.runs.record import read_summary


@pytest.fixture
def quick(faces) -> tuple[str, ...]:
    """Settings of a run of a second: two steps, one epoch."""
    return (
        "data=folders", f"data.root={faces}", "data.batch_size=10", "logger=none", "trainer.max_epochs=1",
        "trainer.limit_train_batches=2", "trainer.precision=32-true",
    )  # fmt: skip


def test_a_study_ends_with_the_comparison_of_fresh_runs(command, quick, faces, tmp_path, monkeypatch):
    looked_at = []
    list_split = ClassFolders.split

    def watch(source, name):
        looked_at.append(name)
        return list_split(source, name)

    monkeypatch.setattr(ClassFolders, "split", watch)
    budget = (
        "hydra.sweeper.trials=2",
        "hydra.sweeper.seeds=2",
        "~hydra.sweeper.arms.rmsprop",
        "hydra.sweeper.val_fraction=0.2",
    )
    status, printed = command("-m", "+study=optimizers", "hydra.sweep.dir=study", *budget, *quick)
    assert status == 0, printed
    summaries = [read_summary(tmp_path / "study" / str(job)) for job in range(8)]
    trials, finals = summaries[:4], summaries[4:]

    # The folder of validation images was not looked at until the last trial had ended.
    assert looked_at == ["train"] * 4 + ["train", "validation"] * 4
    whole = FolderDataModule(root=faces, batch_size=10, seed=0)
    whole.setup()
    assert {t["data"]["train"] + t["data"]["validation"] for t in trials} == {70}
    assert all(t["data"]["fingerprint"]["validation"] != whole.val_set.fingerprint for t in trials)
    assert all(f["data"]["fingerprint"]["validation"] == whole.val_set.fingerprint for f in finals)
    assert all(f["data"]["train"] == 70 for f in finals)

    assert [(t["choices"]["optimizer"], t["seed"]) for t in trials] == [("adam", 0)] * 2 + [("sgd", 0)] * 2
    assert [(f["choices"]["optimizer"], f["seed"]) for f in finals] == [
        ("adam", 1), ("adam", 2), ("sgd", 1), ("sgd", 2),
    ]  # fmt: skip
    # The fixed-budget arm: nothing stops a run early or cuts its rate.
    assert all(s["config"]["callbacks"]["early_stopping"] is None for s in summaries)
    assert all(not s["config"].get("scheduler") for s in summaries)
    report = (tmp_path / "study/comparison.md").read_text()
    assert "learning_rate.svg" in report
    assert (tmp_path / "study/figures/learning_rate.svg").exists()


def test_early_stopping_and_rate_cuts_can_be_part_of_a_study(command, quick, tmp_path):
    budget = (
        "hydra.sweeper.trials=1",
        "hydra.sweeper.seeds=1",
        "~hydra.sweeper.arms.rmsprop",
        "~hydra.sweeper.arms.sgd",
    )
    treatment = ("callbacks=notebook", "scheduler=plateau", "hydra.sweeper.val_fraction=0.2")
    status, printed = command("-m", "+study=optimizers", "hydra.sweep.dir=study", *budget, *treatment, *quick)
    assert status == 0, printed
    config = read_summary(tmp_path / "study/1")["config"]
    assert config["callbacks"]["early_stopping"]["patience"] == 3
    assert config["scheduler"]["_target_"].endswith("ReduceLROnPlateau")


@pytest.mark.parametrize(
    "launcher",
    [
        ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
        ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"),
    ],
    ids=["joblib", "submitit_local"],
)
def test_jobs_run_in_parallel_share_the_cores_and_are_compared(child, quick, tmp_path, launcher):
    sweep = ("-m", "optimizer=adam,sgd", "hydra.sweep.dir=swept", *launcher, *quick)
    result = child("-m", "fer_exp.train", *sweep, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    summaries = [read_summary(tmp_path / "swept" / job) for job in "01"]
    assert [s["choices"]["optimizer"] for s in summaries] == ["adam", "sgd"]
    assert {s["status"] for s in summaries} == {"completed"}
    from fer_exp.training.hardware import available_cores

    assert {s["environment"]["threads"] for s in summaries} == {max(1, available_cores() // 2)}
    assert "Jobs: 2 completed." in result.stdout
    assert (tmp_path / "swept/report.html").exists()


def test_a_study_without_m_is_refused_and_leaves_nothing(command, tmp_path):
    status, printed = command("+study=optimizers")
    assert status == 1
    assert "a study is a sweep: give it with -m" in printed
    assert list(tmp_path.iterdir()) == []
