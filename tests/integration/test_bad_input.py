"""Wrong YAML files, and paths with special characters."""

import os
import shutil
import sys
from functools import partial

import pytest

from fer_exp import audit, train
from fer_exp.runs.record import read_summary

QUICK = ("trainer.max_epochs=1", "trainer.limit_train_batches=1", "logger=none", "data.batch_size=10")
ADAM = "_target_: torch.optim.Adam\n_partial_: true\n"


def assert_refused(command, arguments, words):
    status, printed = command(*arguments)
    assert status == 1, printed
    assert "Traceback" not in printed
    assert printed.count("Error: ") == 1, printed
    assert "HYDRA_FULL_ERROR" not in printed
    for word in words:
        assert word in printed


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"{ADAM}lr: 0.1\nlr: 0.2\n", ["mine.yaml, line 4", "lr"]),
        (f"{ADAM}\tlr: 0.1\n", ["mine.yaml, line 3"]),
        (f"{ADAM}betas: [0.9,\n", ["mine.yaml, line 4"]),
        ("- 1\n- 2\n", ["optimizer=[1, 2]"]),
        ("torch.optim.Adam", ["optimizer", "_target_"]),
        ("# a comment\n", ["optimizer=adam"]),
        ("_partial_: true\nlr: 0.1\n", ["optimizer", "_target_"]),
        ("_target_: torch.optim.Adam\nlr: 0.1\n", ["optimizer", "_partial_: true"]),
        ("_target_: torch.optim.Adamm\n", ["optimizer._target_=torch.optim.Adamm"]),
        ("_target_: os.system\ncommand: touch ran\n", ["optimizer._target_=os.system"]),
        (f"{ADAM}lr: !!python/object/apply:os.system ['touch ran']\n", ["mine.yaml, line 3"]),
        (f"{ADAM}lr: ${{nope}}\n", ["nope", "optimizer.lr"]),
        (f"{ADAM}lr: ${{\n", ["full_key: lr"]),
        (f"{ADAM}lr: .nan\n", ["optimizer.lr=nan"]),
        (f"{ADAM}1: 2\n", ["optimizer.1"]),
        ("defaults: [nowhere]\n", ["optimizer/nowhere"]),
        (f"# \u00e9\n{ADAM}".encode("latin-1"), ["mine.yaml", "UTF-8"]),
        (b"\x00\x01\x02", ["mine.yaml"]),
    ],
    ids=lambda value: repr(value[-24:]) if isinstance(value, str | bytes) else None,
)
def test_an_error_in_a_yaml_file_is_reported(command, tmp_path, content, words):
    file = tmp_path / "conf/optimizer/mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_refused(command, ["--config-dir", "conf", "optimizer=mine"], words)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize("main", [train.main, audit.main], ids=["train", "audit"])
def test_a_class_whose_name_is_no_utf8_text_is_refused(run_main, faces, tmp_path, main):
    shutil.copytree(faces, tmp_path / "unpacked")
    for split in ("train", "validation"):
        (tmp_path / "unpacked" / split / "angry").rename(tmp_path / "unpacked" / split / os.fsdecode(b"\xb7\xdf"))
    assert_refused(partial(run_main, main), ["data=folders", "data.root=unpacked"], [r"\xb7\xdf", "UTF-8"])


def test_the_run_folder_may_have_special_characters(command, faces, tmp_path):
    (tmp_path / "my, faces [1]").symlink_to(faces)
    arguments = ("data=folders", "data.root=my, faces [1]", "hydra.run.dir=2025_11_26/1.10 =x", *QUICK)
    assert command(*arguments)[0] == 0
    summary = read_summary(tmp_path / "2025_11_26/1.10 =x")
    assert summary["status"] == "completed"
    assert summary["config"]["data"]["root"] == str(tmp_path / "my, faces [1]")
