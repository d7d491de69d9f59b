"""Path arguments, streams, interrupts and messages: what all commands share."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from fer_exp.cli import quote_paths
from fer_exp.config.paths import PATH_KEYS

SRC = Path(__file__).parents[1] / "src"
COMMANDS = ("train", "compare", "evaluate", "predict", "export", "audit")


def values(*arguments: str) -> list:
    """What Hydra reads from the arguments, the sweep values as lists."""
    overrides = OverridesParser.create().parse_overrides(quote_paths(arguments)[("-m" in arguments) :])
    return [list(o.value().list) if o.is_sweep_override() else o.value() for o in overrides]


AS_TYPED = [
    "1.10",
    "1e3",
    "2025_11_26",
    "a b",
    "a,b",
    "[x] y",
    "x=y",
    "(1)",
    "{a}",
    "007",
    "true",
    "a:b",
    "é",
    "-1",
    "'",
    "a'b",
    "b\\",
]


@pytest.mark.parametrize("text", AS_TYPED)
def test_paths_are_read_as_typed(text):
    for key in PATH_KEYS:
        assert values(f"{key}={text}") == [text]
        assert values(f"+{key}={text}") == [text]
    assert values("-m", f"hydra.sweep.dir={text}") == [text]  # Hydra does not sweep over its own keys


def test_other_keys_keep_hydras_grammar():
    assert values("optimizer.lr=1e3", "seed=1", "optimizer.betas=[0.9,1]") == [1000.0, 1, [0.9, 1]]


def test_the_home_folder_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert values("hydra.run.dir=~/a", "hydra.run.dir='~/a'", 'data.root="~/a b"') == ["/home/me/a"] * 2 + [
        "/home/me/a b"
    ]


def test_null_interpolations_and_quoted_values_keep_their_meaning():
    assert values("resume=null", "data.root=${oc.env:FACES}/x", "data.root='a b'", "data.root='it\\'s'") == [
        None,
        "${oc.env:FACES}/x",
        "a b",
        "it's",
    ]


def test_lists_are_read_item_by_item():
    assert values("images=[a.jpg,1.10,'b c.jpg',1e3]") == [["a.jpg", "1.10", "b c.jpg", "1e3"]]
    assert values("data.ignore=[]") == [[]]


def test_a_comma_sweeps_unless_the_path_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert quote_paths(["-m", "data.root=1.10,'b,c',d e"]) == ["-m", "data.root='1.10','b,c','d e'"]
    (tmp_path / "x,y").mkdir()
    assert values("-m", "data.root=x,y") == ["x,y"]
    assert values("-m", "data.root=choice(a,b)") == [["a", "b"]]


def run(*arguments: str, cwd: Path, **options) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(SRC), **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        preexec_fn=accept_ctrl_c,
        **options,
    )


def accept_ctrl_c() -> None:
    """Children of a process in the background ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("command", ["train", "compare"])
def test_an_interrupt_during_the_imports_is_one_line(tmp_path, command):
    # A module that Hydra imports sends the signal to its own process, as Ctrl-C does.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'fer_exp.errors':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    result = run("-m", f"fer_exp.{command}", "x", cwd=tmp_path, env={"PYTHONPATH": f"{tmp_path}:{SRC}"})
    assert (result.returncode, result.stdout) == (130, "")
    assert len(result.stderr.splitlines()) == 1


def test_an_interrupt_during_composition_is_one_line(tmp_path):
    code = (
        "import os, signal, sys; from hydra._internal.config_loader_impl import ConfigLoaderImpl as C\n"
        "C.load_configuration = lambda *a, **k: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.argv = ['train', 'seed=1']; from fer_exp.train import main; main()"
    )
    result = run("-c", code, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (130, "")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("redirection", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(tmp_path, redirection):
    command = f"{sys.executable} -m fer_exp.train --cfg job {redirection}"
    env = {**os.environ, "PYTHONPATH": str(SRC)}
    result = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


FULL_LOG = "hydra.job_logging.handlers.file.filename=/dev/full"
MISTAKES = {
    "train": ["data=folders", "data.root=nowhere", FULL_LOG],
    "compare": ["nowhere"],
    "evaluate": ["run=nowhere", FULL_LOG],
    "predict": ["run=nowhere", "images=nowhere"],
    "export": ["run=nowhere", FULL_LOG],
    "audit": ["data.root=nowhere", FULL_LOG],
}


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
@pytest.mark.parametrize("command", COMMANDS)
def test_an_error_is_one_line_on_standard_error_with_no_reader_and_a_full_disk(tmp_path, command):
    script = '"$@" | true; exit ${PIPESTATUS[0]}'
    arguments = [sys.executable, "-m", f"fer_exp.{command}", *MISTAKES[command]]
    env = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run(["bash", "-c", script, "bash", *arguments], cwd=tmp_path, env=env, capture_output=True)
    message = done.stderr.decode()
    assert (done.returncode, message[:7], len(message.splitlines())) == (1, "Error: ", 1), message
    assert "nowhere" in message
    assert not list(tmp_path.glob("outputs/*/*"))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_and_the_keys_without_importing_torch(tmp_path, command):
    code = (
        f"import sys; sys.argv = ['x', '--help']; from fer_exp.{command} import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    result = run("-c", code, cwd=tmp_path)
    assert result.stderr == ""
    assert f"python -m fer_exp.{command}" in result.stdout
    assert result.stdout.split()[-1] == "False"
    if command == "train":
        for word in ("optimizer: adam", "monitor: val_loss", "# ", "max_epochs"):
            assert word in result.stdout


@pytest.mark.parametrize(("value", "is_traced"), [("1", True), ("0", False), ("", False)])
def test_tracebacks_are_printed_on_request(tmp_path, value, is_traced):
    result = run("-m", "fer_exp.train", "optimizer=null", cwd=tmp_path, env={"HYDRA_FULL_ERROR": value})
    assert result.returncode == 1
    assert ("Traceback" in result.stderr) == is_traced


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_working_directory_that_is_not_utf_8_gets_one_message(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    Path(os.fsdecode(folder)).mkdir()
    result = run("-m", "fer_exp.train", cwd=folder)
    assert (result.returncode, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1
    assert "caf\\xe9" in result.stderr
