import errno
import fcntl
import json
import logging
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fer_exp.errors import UserError
from fer_exp.files import DRAFT
from fer_exp.runs.folder import check_run_dir, find_resume_state, is_run_of, lock_run_dir, remove_empty_run_dir
from fer_exp.runs.record import RunRecord

CONFIG = {"optimizer": {"lr": 0.1}, "trainer": {"max_epochs": 3}, "data": {"root": "/faces"}}
ROW = {"epoch": 1, "step": 1, "lr": 0.1, "train_loss": 1.0, "val_loss": 1.0, "train_seconds": 1.0, "val_seconds": 1.0}


@pytest.fixture
def run(tmp_path):
    """Write a run's folder: ``run(status="failed")``; ``checkpoint=False`` leaves it without last.ckpt."""

    def write(status="running", config=CONFIG, checkpoint=True, folder=tmp_path / "run"):
        (folder / ".hydra").mkdir(parents=True)
        record = RunRecord(folder, {"config": config})
        record.write_epochs([ROW])
        record.finish(status, 1.0)
        if checkpoint:
            (folder / "checkpoints").mkdir()
            with zipfile.ZipFile(folder / "checkpoints/last.ckpt", "w") as archive:
                archive.writestr("data.pkl", b"weights" * 100)
        return folder

    return write


def test_new_and_empty_folders_are_accepted(tmp_path):
    check_run_dir(tmp_path / "new", None, {})
    for name in (".hydra", "meta"):  # hydra.output_subdir=meta
        (tmp_path / name).mkdir()
        (tmp_path / name / "hydra.yaml").write_text("")
    (tmp_path / "train.log").write_text("")
    check_run_dir(tmp_path, None, {})


@pytest.mark.parametrize("resume", [None, "other/checkpoints/last.ckpt"])
def test_the_folder_of_another_run_is_refused(run, resume):
    with pytest.raises(UserError, match="resume=auto"):
        check_run_dir(run(), resume, CONFIG)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file/run"):
        with pytest.raises(UserError, match="is a file"):
            check_run_dir(folder, None, {})


@pytest.mark.parametrize(
    ("status", "checkpoint", "state"),
    [
        ("completed", True, "finished"),
        ("diverged", False, "finished"),
        ("running", True, "resume"),
        ("interrupted", True, "resume"),
        ("failed", True, "resume"),
        ("running", False, "new"),
        ("failed", False, "new"),
    ],
)
def test_state_of_an_earlier_attempt(run, status, checkpoint, state):
    folder = run(status, checkpoint=checkpoint)
    (folder / "curves.png").write_text("")
    last = folder / "checkpoints/last.ckpt"
    check_run_dir(folder, "auto", {**CONFIG, "output_dir": "x"})
    assert find_resume_state(folder, CONFIG) == (state, last if state == "resume" else None)
    if state == "new":
        assert [path.name for path in folder.iterdir()] == [".hydra"]
    else:
        assert (folder / "curves.png").exists()


@pytest.mark.parametrize(
    ("change", "refused_by"),
    [
        ({"optimizer": {"lr": 0.2}}, {"running", "completed"}),
        ({"optimizer": {"lr": 0.1, "fused": True}, "resume": "auto", "logger": {"dir": "x"}}, set()),
        ({"trainer": {"max_epochs": 9}}, {"completed"}),
        ({"callbacks": {"mine": {"a": 1}}}, {"completed"}),
        ({"data": {"root": "/moved"}}, {"completed"}),  # a resumed run compares the images' fingerprint
        ({"data": {"file": {"train": "/moved/a.csv"}, "ferplus": {"file": "/moved/b.csv"}}}, {"completed"}),
        ({"seed": 1}, {"running", "completed"}),
    ],
)
@pytest.mark.parametrize("status", ["running", "completed"])
def test_settings_that_an_attempt_may_change(run, status, change, refused_by):
    folder = run(status)
    steps = (
        lambda: check_run_dir(folder, "auto", {**CONFIG, **change}),
        lambda: find_resume_state(folder, {**CONFIG, **change}),
    )
    for step in steps:
        if status in refused_by:
            with pytest.raises(UserError, match="other settings"):
                step()
        else:
            step()


def test_a_run_that_failed_before_it_trained_may_have_any_settings(run):
    assert find_resume_state(run("failed", checkpoint=False), {"optimizer": {"lr": 1}}) == ("new", None)


def damage_history(folder):
    text = (folder / "history.csv").read_text()
    (folder / "history.csv").write_text(text[: len(text) // 2])


def damage_summary(folder):
    (folder / "summary.json").write_text('{"schema": 3, "sta')


def damage_checkpoint(folder):
    content = bytearray((folder / "checkpoints/last.ckpt").read_bytes())
    content[60] ^= 1
    (folder / "checkpoints/last.ckpt").write_bytes(content)


@pytest.mark.parametrize(
    ("damages", "state"),
    [
        ([damage_history], "resume"),
        ([lambda folder: (folder / "history.csv").unlink()], "resume"),
        ([damage_summary], "resume"),
        ([damage_history, damage_checkpoint], "new"),
        ([damage_summary, damage_checkpoint], "new"),
        ([damage_history, lambda folder: (folder / "checkpoints/last.ckpt").write_text("")], "new"),
    ],
)
def test_a_damaged_finished_run_is_repeated(run, damages, state, caplog):
    folder = run("completed")
    for damage in damages:
        damage(folder)
    check_run_dir(folder, "auto", CONFIG)
    assert find_resume_state(folder, CONFIG)[0] == state
    assert "damaged" in caplog.text


def test_a_record_of_another_schema_is_not_replaced(run):
    folder = run("completed")
    text = json.dumps(json.loads((folder / "summary.json").read_text()) | {"schema": 4})
    (folder / "summary.json").write_text(text)
    with pytest.raises(UserError, match="schema 4"):
        find_resume_state(folder, CONFIG)
    assert (folder / "summary.json").read_text() == text


def test_files_of_others_are_never_removed(run, tmp_path, monkeypatch):
    folder = run("failed", checkpoint=False)
    (folder / "thesis.txt").write_text("years of work")
    (tmp_path / "run/here").mkdir()
    monkeypatch.chdir(tmp_path / "run/here")
    for place in (folder, Path("..")):
        for step in (lambda p=place: check_run_dir(p, "auto", CONFIG), lambda p=place: find_resume_state(p, CONFIG)):
            with pytest.raises(UserError, match=r"thesis\.txt"):
                step()
    assert (folder / "thesis.txt").exists()


def test_drafts_of_a_killed_process_are_removed(run):
    folder = run()
    drafts = [folder / f".summary.json.1{DRAFT}", folder / f"checkpoints/.last.ckpt.1{DRAFT}"]
    for draft in drafts:
        draft.write_text("")
    find_resume_state(folder, CONFIG)
    assert not any(draft.exists() for draft in drafts)


@pytest.mark.parametrize("linked", ["folder", "checkpoints"])
def test_linked_folders_are_the_same_run(run, tmp_path, linked):
    folder, scratch = run(), tmp_path / "scratch"
    if linked == "folder":
        folder.rename(scratch)
        folder.symlink_to(scratch)
    else:
        (folder / "checkpoints").rename(scratch)
        (folder / "checkpoints").symlink_to(scratch)
    state, checkpoint = find_resume_state(folder, CONFIG)
    assert state == "resume"
    check_run_dir(folder, str(checkpoint), CONFIG)
    assert is_run_of(checkpoint, folder)
    assert not is_run_of(checkpoint, tmp_path)


HOLD = """
import sys
from pathlib import Path
from fer_exp.runs.folder import lock_run_dir
with lock_run_dir(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def locked(tmp_path):
    """A folder that another process has locked."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        yield tmp_path / "run"
        process.stdin.close()


def test_a_folder_is_used_by_one_process(locked, tmp_path):
    for refused in (lambda: lock_run_dir(locked).__enter__(), lambda: check_run_dir(locked, "auto", {})):
        with pytest.raises(UserError, match="another process"):
            refused()
    remove_empty_run_dir(locked)
    assert (locked / ".hydra/lock").exists()
    for _ in range(2):
        with lock_run_dir(tmp_path / "other"):
            check_run_dir(tmp_path / "other", None, {})


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_warned_about(tmp_path, monkeypatch, caplog, code):
    def refuse(*_):
        raise OSError(code, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock_run_dir(tmp_path / "run"):
        check_run_dir(tmp_path / "run", None, {})
    assert code == errno.ENOSYS or "cannot be locked" in caplog.text


def test_a_lock_does_not_follow_links(tmp_path):
    (tmp_path / "run/.hydra").mkdir(parents=True)
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "run/.hydra/lock").symlink_to(tmp_path / "thesis.txt")
    with pytest.raises(UserError, match="cannot be written"), lock_run_dir(tmp_path / "run"):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_only_an_empty_folder_is_removed(tmp_path):
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    handler = logging.FileHandler(folder / "train.log")
    logging.getLogger().addHandler(handler)
    (folder / "mine.txt").write_text("")
    remove_empty_run_dir(folder)
    assert (folder / ".hydra").exists()
    (folder / "mine.txt").unlink()
    remove_empty_run_dir(folder)
    logging.getLogger().removeHandler(handler)
    assert not folder.exists()
