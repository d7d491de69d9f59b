"""A run's folder: what may be written there, and what an earlier try left."""

import logging
import math
import subprocess
import sys
from pathlib import Path

import pytest

from fer_exp.errors import UserError
from fer_exp.files import DRAFT
from fer_exp.runs.folder import check_folder, claim, discard, find_resume_state
from fer_exp.runs.record import RunRecord


def test_a_run_s_folder_is_new_or_its_own(tmp_path):
    check_folder(tmp_path / "new", None, {})
    (tmp_path / "hydra/.hydra").mkdir(parents=True)
    check_folder(tmp_path / "hydra", None, {})
    own = tmp_path / "own"
    (own / "checkpoints").mkdir(parents=True)
    RunRecord(own, {"config": {"optimizer": {"lr": 0.1}}}).finish("running", 0.0)
    check_folder(own, str(own / "checkpoints/last.ckpt"), {})
    check_folder(own, "auto", {"optimizer": {"lr": 0.1}, "resume": "auto", "output_dir": "here"})
    with pytest.raises(UserError, match=r"holds the record of another run.*; resume=auto goes on with it"):
        check_folder(own, None, {})
    with pytest.raises(UserError, match="holds the record of another run"):
        check_folder(own, str(tmp_path / "other/checkpoints/last.ckpt"), {})
    with pytest.raises(UserError, match=r"other settings \(optimizer.lr was 0.1 and is 0.2; seed was None and is 1\)"):
        check_folder(own, "auto", {"optimizer": {"lr": 0.2}, "seed": 1})
    (own / "summary.json").unlink()
    for left in ("samples.png", f".model.png.1{DRAFT}", "history.csv"):  # killed before its record began
        (own / left).write_text("")
    check_folder(own, "auto", {})
    with pytest.raises(UserError, match="holds other files"):
        check_folder(own, None, {})
    (own / "thesis.txt").write_text("")
    with pytest.raises(UserError, match=r"holds files that no run wrote \(thesis.txt\): move them, or choose another"):
        check_folder(own, "auto", {})


def test_what_no_run_wrote_is_never_taken_away(tmp_path, monkeypatch):
    (tmp_path / "parent/here").mkdir(parents=True)
    (tmp_path / "parent/thesis.txt").write_text("years of work")
    monkeypatch.chdir(tmp_path / "parent/here")
    for step in (lambda: check_folder(Path(".."), "auto", {}), lambda: find_resume_state(Path(".."), {})):
        with pytest.raises(UserError, match=r"holds files that no run wrote \(here, thesis.txt\)"):
            step()
    run = tmp_path / "run"
    RunRecord(run, {"config": {}}).finish("failed", 1.0)
    for name in "abcd":
        (run / f"{name}.md").write_text("")
    check_folder(run, "auto", {})
    with pytest.raises(UserError, match=r"\(a.md, b.md, c.md and 1 more\)"):
        find_resume_state(run, {})
    assert len(list(run.iterdir())) == 5
    assert (tmp_path / "parent/thesis.txt").exists()


def test_how_a_run_is_computed_is_no_setting(tmp_path):
    RunRecord(tmp_path, {"config": {"optimizer": {"lr": 0.1}}}).finish("completed", 1.0)
    now = {"optimizer": {"lr": 0.1, "fused": True}, "data": {"in_memory": False, "cache_dir": "there"}}
    with pytest.raises(UserError, match=r"\(data was None and is"):
        find_resume_state(tmp_path, now)
    del now["data"]
    assert find_resume_state(tmp_path, now) == ("finished", None)
    RunRecord(tmp_path, {"config": {"data": {"root": "a", "in_memory": True}}}).finish("completed", 1.0)
    assert find_resume_state(tmp_path, {"data": {"root": "a", "in_memory": False, "cache_dir": "b"}})[0] == "finished"


@pytest.mark.parametrize(
    ("status", "has_checkpoint", "found"),
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
def test_what_an_earlier_try_left_of_a_job(tmp_path, status, has_checkpoint, found):
    config = {"seed": 0, "output_dir": "here", "resume": None}
    RunRecord(tmp_path, {"config": config}).finish(status, 1.0)
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "curves.png").write_text("")
    last = tmp_path / "checkpoints/last.ckpt"
    if has_checkpoint:
        last.parent.mkdir()
        last.write_text("")
    # Where the run lies and what it resumes is not what it is set to.
    attempt = find_resume_state(tmp_path, {"seed": 0, "output_dir": "there", "resume": "x"})
    assert attempt == (found, last if found == "resume" else None)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {".hydra"} if found == "new" else "curves.png" in left
    if found != "new":
        with pytest.raises(UserError, match=r"a run with other settings \(seed was 0 and is 1\)"):
            find_resume_state(tmp_path, {"seed": 1, "output_dir": "there", "resume": None})


def test_a_run_that_failed_before_it_trained_may_have_its_settings_mended(tmp_path):
    RunRecord(tmp_path, {"config": {"optimizer": {"lr": -1}}}).finish("failed", 1.0)
    assert find_resume_state(tmp_path, {"optimizer": {"lr": 1}}) == ("new", None)


def test_a_setting_without_a_number_in_json_is_not_another_one(tmp_path):
    config = {"optimizer": {"clip": math.inf}}
    RunRecord(tmp_path, {"config": config}).finish("completed", 1.0)
    assert find_resume_state(tmp_path, config) == ("finished", None)


def test_drafts_that_a_killed_process_left_are_taken_away(tmp_path):
    RunRecord(tmp_path, {}).finish("running", 1.0)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").write_text("")
    (tmp_path / f"checkpoints/.last.ckpt.1{DRAFT}").write_text("")
    find_resume_state(tmp_path, {})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


HOLD = """
import sys
from pathlib import Path
from fer_exp.runs.folder import claim
with claim(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path):
    """A run's folder that another process trains in; it has not got further than to claim it."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield tmp_path / "run"
        process.stdin.close()


def test_a_folder_is_held_by_one_process(held, tmp_path):
    for refused in (lambda: claim(held).__enter__(), lambda: check_folder(held, "auto", {})):
        with pytest.raises(UserError, match="run: another process is training in this folder; choose another, or wait"):
            refused()
    with claim(tmp_path / "other"):
        check_folder(tmp_path / "other", None, {})  # one's own
        with pytest.raises(UserError, match="another process"):
            claim(tmp_path / "other").__enter__()


def test_what_another_process_has_begun_is_not_taken_away(held):
    discard(held)
    assert (held / ".hydra/lock").exists()


def test_a_process_that_ended_holds_nothing(tmp_path):
    for _ in range(2):
        with claim(tmp_path / "run"):
            pass
    discard(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file/run"):
        with pytest.raises(UserError, match=r"/file is a file: choose another hydra\.run\.dir"):
            check_folder(folder, None, {})


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.hydra").write_text("")
    with pytest.raises(UserError, match=r"run cannot be written \(File exists\): choose another hydra\.run\.dir"):
        claim(tmp_path / "run").__enter__()
    with pytest.raises(UserError, match=r"run cannot be written \(File exists\): copy it\."):
        claim(tmp_path / "run", "copy it").__enter__()


def test_a_job_that_left_nothing_is_new(tmp_path):
    assert find_resume_state(tmp_path, {"seed": 0}) == ("new", None)
    assert find_resume_state(tmp_path / "not_there", {"seed": 0}) == ("new", None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "summary.json is empty"),
        (b"\0" * 4096, "summary.json is empty"),
        (b'{"schema": 2, "sta', "Unterminated string"),
        (b"\xff\xfe\x00", "decode"),
        (b"[" * 100_000, "summary.json is nested too deeply"),
        (b"[1]", "summary.json holds no mapping"),
        (b"{}", "summary.json is not that of a run"),
        (b'{"schema": 99}', "its schema is 99"),
        (b'{"schema": 2}', "summary.json lacks status, epochs, seconds"),
        (b'{"schema": 2, "status": ["completed"], "epochs": 1, "seconds": {}}', "its status is ['completed']"),
        (b'{"schema": 2, "status": "running", "epochs": "1", "seconds": {}}', "its epochs is '1'"),
        (b'{"schema": 2, "status": "running", "epochs": 1, "seconds": {}, "config": "adam"}', "its config is 'adam'"),
        (b'{"schema": 2, "status": "running", "epochs": 1, "seconds": {}, "best": {"val_acc": "x"}}', "its val_acc is"),
    ],
    ids=lambda value: str(value[:30]),
)
def test_a_damaged_record_is_neither_gone_on_from_nor_taken_away(tmp_path, content, reason):
    (tmp_path / "summary.json").write_bytes(content)  # not ours: our own are replaced whole
    for refused in (lambda: find_resume_state(tmp_path, {}), lambda: check_folder(tmp_path, "auto", {})):
        with pytest.raises(UserError, match=r"summary\.json cannot be read \(.*\): choose another") as error:
            refused()
        assert reason in str(error.value)
    assert (tmp_path / "summary.json").read_bytes() == content


@pytest.fixture
def hydra_log(tmp_path):
    """A folder as Hydra leaves it before a run begins, its log open."""
    (tmp_path / "run/.hydra").mkdir(parents=True)
    handler = logging.FileHandler(tmp_path / "run/train.log")
    logging.getLogger().addHandler(handler)
    yield tmp_path / "run"
    logging.getLogger().removeHandler(handler)
    handler.close()


def test_a_command_that_came_to_nothing_leaves_nothing(hydra_log):
    discard(hydra_log)
    assert not hydra_log.exists()


@pytest.mark.parametrize("name", ["thesis.log", "thesis.txt"])
def test_what_others_left_in_a_folder_is_never_taken_away(hydra_log, name):
    (hydra_log / name).write_text("years of work")
    discard(hydra_log)
    assert (hydra_log / name).read_text() == "years of work"
