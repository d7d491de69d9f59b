"""Whatever is wrong with a configuration, a folder or a record: one message, which names the place and the remedy."""

import json
import subprocess
import sys

import pytest

from fer_exp import compare
from fer_exp.runs.record import RunRecord, read_summary

QUICK = ("trainer.max_epochs=1", "trainer.limit_train_batches=1", "logger=none", "data.batch_size=10")
ADAM = "_target_: torch.optim.Adam\n_partial_: true\n"


def assert_refused(command, arguments, said):
    status, printed = command(*arguments)
    assert status == 1, printed
    assert "Traceback" not in printed
    assert printed.count("Error: ") == 1, printed
    assert "HYDRA_FULL_ERROR" not in printed
    for part in said:
        assert part in printed


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"{ADAM}lr: 0.1\nlr: 0.2\n", ["mine.yaml, line 4: found duplicate key lr; mend the file."]),
        (f"{ADAM}\tlr: 0.1\n", ["mine.yaml, line 3: found character '\\t' that cannot start any token"]),
        (f"{ADAM}betas: [0.9,\n", ["mine.yaml, line 4: expected the node content, but found '<stream end>'"]),
        ("- 1\n- 2\n", ["optimizer=[1, 2]: expected keys and values"]),
        ("torch.optim.Adam", ["optimizer: has no _target_, the class to make"]),
        ("", ["optimizer: nothing is chosen; give e.g. optimizer=adam"]),
        ("# a comment\n", ["optimizer: nothing is chosen"]),
        ("_partial_: true\nlr: 0.1\n", ["optimizer: has no _target_, the class to make"]),
        ("_target_: torch.optim.Adamm\n", ["optimizer._target_=torch.optim.Adamm: cannot be imported"]),
        (
            "_target_: os.system\ncommand: touch ran\n",
            ["optimizer._target_=os.system: expected a class that is a kind"],
        ),
        ("_target_: shutil.rmtree\npath: outputs\n", ["_target_=shutil.rmtree: expected a class"]),
        (f"{ADAM}lr: !!python/object/apply:os.system ['touch ran']\n", ["mine.yaml, line 3: could not determine"]),
        (f"{ADAM}lr: ${{nope}}\n", ["Interpolation key 'nope' not found full_key: optimizer.lr"]),
        (f"{ADAM}lr: ${{\n", ["a value of the configuration cannot be read", "full_key: lr"]),
        (f"{ADAM}lr: quick\n", ["optimizer.lr=quick: expected a number"]),
        (f"{ADAM}lr: -0.1\n", ["optimizer.lr=-0.1: expected a finite number from 0 up"]),
        (f"{ADAM}lr: .nan\n", ["optimizer.lr=nan: expected a finite number from 0 up"]),
        (f"{ADAM}1: 2\n", ["optimizer.1: Adam takes no such key"]),
        ("defaults: [nowhere]\n", ["Could not load 'optimizer/nowhere'"]),
        (f"# \u00e9\n{ADAM}".encode("latin-1"), ["mine.yaml: this is no text in UTF-8", "save the file as UTF-8"]),
        (b"\x00\x01\x02", ["a configuration file cannot be read", "mine.yaml"]),
    ],
    ids=lambda value: repr(value[-24:]) if isinstance(value, str | bytes) else None,
)
def test_a_wrong_yaml_is_named(command, tmp_path, content, said):
    file = tmp_path / "conf/optimizer/mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_refused(command, ["--config-dir", "conf", "optimizer=mine"], said)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["optimizer.lr=-1"], ["optimizer.lr=-1: expected a finite number from 0 up"]),
        (["optimizer.lr=nan"], ["optimizer.lr=nan: expected a finite number from 0 up"]),
        (["optimizer.lr=inf"], ["optimizer.lr=inf: expected a finite number from 0 up"]),
        (["optimizer=sgd", "optimizer.momentum=inf"], ["optimizer.momentum=inf: expected a finite number"]),
        (["optimizer=sgd", "optimizer.momentum=-1"], ["Invalid momentum value: -1. Given: lr=0.01, momentum=-1"]),
        (["optimizer=null"], ["optimizer=null: expected the name of a choice: adam, adamw, rmsprop"]),
        (["scheduler=null"], ["scheduler=null: expected the name of a choice", "scheduler=none for none"]),
        (["data=[1,2]"], ["data=[1,2]: expected the name of a choice: folders, synthetic"]),
        (["experiment=5"], ["experiment=5: expected the name of a choice: notebook, notebook_patient"]),
        (["data.root=DIR"], ["data.root=DIR: this is a key of data=folders", "give data=folders data.root=DIR"]),
        (["optimizer.momentum=0.9"], ["a key of optimizer=rmsprop or sgd or sgd_nesterov, which is not chosen"]),
        (["optimizer.lrr=1"], ["optimizer.lrr=1: there is no such key; --cfg job prints those there are"]),
        (["lr=1"], ["lr=1: there is no such key; did you mean optimizer.lr?"]),
        (["optimizer.lr"], ["'optimizer.lr'", "expected KEY=VALUE"]),
        (["optimizer.lr=[1,"], ["'[1,'", "expected KEY=VALUE"]),
        (["data=folders", "data.root=/my faces (1)"], ["with quotes around a value with signs"]),
        (["--config-dir", "nowhere"], ["nowhere' not found"]),
        (["--config-name", "nowhere"], ["Cannot find primary config 'nowhere'"]),
        (["--resolve"], ["The --resolve flag can only be used in conjunction with --cfg or --help"]),
        (["resume=folder"], ["resume=folder: there is no such checkpoint"]),
        (
            ["resume=file"],
            ["resume=file: this is not a checkpoint to go on from", "expected the checkpoints/last.ckpt"],
        ),
        (["hydra.run.dir=file"], ["file is a file: choose another hydra.run.dir"]),
        (["hydra.run.dir=file/run"], ["file is a file: choose another hydra.run.dir"]),
        (["hydra.run.dir="], [". holds other files: choose another hydra.run.dir"]),
        (["hydra.run.dir=/dev/null/run"], ["/dev/null is a file: choose another hydra.run.dir"]),
        (["output_dir=here"], ["output_dir=here: a command's folder is chosen by hydra.run.dir=here"]),
        (["-m", "hydra.sweep.dir=file", "seed=0,1"], ["the sweep cannot begin in", "File exists"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_in_the_command_is_named(command, tmp_path, arguments, said):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    assert_refused(command, arguments, said)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["file"]


def test_a_folder_that_may_not_be_written_is_named(command, monkeypatch, tmp_path):
    def forbid(self, *arguments, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.mkdir", forbid)
    assert_refused(command, ["hydra.run.dir=out"], ["out cannot be written (Permission denied): choose another"])
    assert list(tmp_path.iterdir()) == []


def test_no_folder_is_the_working_folder(command, faces, tmp_path):
    assert command("data=folders", f"data.root={faces}", "hydra.run.dir=", *QUICK)[0] == 0
    assert read_summary(tmp_path)["status"] == "completed"


def test_a_person_who_asks_for_the_trace_gets_it(child, tmp_path):
    given = ("-m", "fer_exp.train", "optimizer=null")
    told, traced = (child(*given, cwd=tmp_path, **env) for env in ({}, {"HYDRA_FULL_ERROR": "1"}))
    assert told.stderr.startswith("Error: optimizer=null: expected the name of a choice")
    assert "Traceback" in traced.stderr
    assert (told.returncode, traced.returncode) == (1, 1)


def test_a_fault_of_the_software_is_traced_once_and_kept_in_the_log(command, tmp_path, monkeypatch):
    monkeypatch.setattr("fer_exp.train.check_config", lambda _: 1 / 0)
    status, printed = command("hydra.run.dir=run")
    assert status == 1
    assert printed.count("Traceback") == 1
    assert "ZeroDivisionError" in (tmp_path / "run/train.log").read_text()


# A process that has claimed a run's folder and has not got further.
HOLD = """
from pathlib import Path
from fer_exp.runs.folder import lock_run_dir
with lock_run_dir(Path("run")):
    Path("run/.hydra/config.yaml").write_text("of the first")
    print("held", flush=True)
    input()
"""


@pytest.mark.parametrize("more", [[], ["resume=auto"]])
def test_of_two_runs_given_one_folder_the_second_is_refused_and_harms_nothing(command, tmp_path, more):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout.readline() == "held\n"
        assert_refused(command, ["hydra.run.dir=run", *more], ["run: another process is training in this folder"])
        assert (tmp_path / "run/.hydra/config.yaml").read_text() == "of the first"
        first.communicate("\n")
    assert first.returncode == 0


def test_a_sweep_s_folder_is_not_chosen_by_output_dir(command, tmp_path):
    status, printed = command("-m", "output_dir=here", "seed=0,1", "hydra.sweep.dir=swept", *QUICK)
    assert status == 1
    assert printed.count("output_dir=here: a command's folder is chosen by hydra.sweep.dir=here") == 2
    assert not (tmp_path / "here").exists()
    assert not list(tmp_path.rglob("summary.json"))


def test_a_run_that_was_to_go_on_says_where_it_found_nothing(command, faces, tmp_path):
    given = ("data=folders", f"data.root={faces}", *QUICK, "resume=auto")
    status, printed = command(*given)
    assert status == 0
    assert f"There is nothing to go on from in {tmp_path}/outputs/runs/" in printed
    status, printed = command(*given, "hydra.run.dir=run")
    assert f"There is nothing to go on from in {tmp_path}/run: this is a new run." in printed
    assert "nothing to go on from" not in command(*given, "hydra.run.dir=run")[1]


@pytest.mark.parametrize("name", ["summary.json", "checkpoints/last.ckpt"])
def test_a_run_with_a_damaged_file_is_not_gone_on_from(command, faces, tmp_path, name):
    given = ("data=folders", f"data.root={faces}", "hydra.run.dir=run", *QUICK, "resume=auto")
    assert command(*given)[0] == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    (tmp_path / "run/summary.json").write_text(json.dumps({**summary, "status": "running"}))
    (tmp_path / "run" / name).write_bytes((tmp_path / "run" / name).read_bytes()[:-100])
    record = [
        path for path in (tmp_path / "run").glob("**/[!.]*.*") if path.suffix in (".json", ".csv", ".ckpt", ".png")
    ]
    before = [path.read_bytes() for path in record]
    said = {"summary.json": "summary.json cannot be read", "checkpoints/last.ckpt": "not a checkpoint to go on from"}
    assert_refused(command, given, [said[name]])
    assert [path.read_bytes() for path in record] == before


def test_a_sweep_with_a_damaged_file_is_not_gone_on_from(command, tmp_path):
    (tmp_path / "sweep").mkdir()
    RunRecord(tmp_path / "sweep/0", {"seed": 0}).finish("completed", 1.0)
    (tmp_path / "sweep/sweep.json").write_text('{"overrides": ["seed')
    assert_refused(command, ["-m", "hydra.sweep.dir=sweep", "seed=0,1"], ["the sweep cannot begin in", "Unterminated"])
    assert (tmp_path / "sweep/sweep.json").read_text() == '{"overrides": ["seed'


def test_damaged_records_are_left_out_of_a_comparison_with_a_sentence_each(run_main, tmp_path):
    row = {
        "epoch": 1, "step": 10, "lr": 0.1, "train_loss": 1.0, "train_acc": 0.5, "val_loss": 1.0, "val_acc": 0.5,
        "val_macro_f1": 0.5, "train_seconds": 1.0, "val_seconds": 0.25,
    }  # fmt: skip
    for name in ("sound", "empty", "deep", "cut", "zeros"):
        record = RunRecord(tmp_path / "runs" / name, {"config": {}, "choices": {"optimizer": "adam"}, "seed": 0})
        record.write_epochs([row])
        record.finish("completed", 2.0)
    (tmp_path / "runs/empty/summary.json").write_text("")
    (tmp_path / "runs/deep/summary.json").write_text("[" * 100_000)
    history = (tmp_path / "runs/cut/history.csv").read_bytes()
    (tmp_path / "runs/cut/history.csv").write_bytes(history[:-2])
    (tmp_path / "runs/zeros/history.csv").write_bytes(bytes(len(history)))
    status, printed = run_main(compare.main, "runs", "output=report")
    assert (status, printed.count("Traceback")) == (0, 0), printed
    said = " ".join(printed.split())
    for name in ("empty", "deep", "cut", "zeros"):
        assert said.count(f"runs/{name} is excluded: ") == 1
