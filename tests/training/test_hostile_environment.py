"""What a host program, a cluster or a shell passes on does not change a run."""

import os
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir

from fer_exp.config.schema import CONFIG_DIR
from fer_exp.runs.record import read_history, read_summary
from fer_exp.train import train

SETTINGS = (
    "data=folders", "data.batch_size=10", "trainer.max_epochs=1", "model=vgg", "model.widths=[8,8]",
    "model.convolutions=[1,1]", "model.dense=[]", "trainer.precision=32-true", "trainer.accelerator=cpu",
)  # fmt: skip
SLURM = {
    "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "x", "SLURM_NTASKS": "4", "SLURM_PROCID": "1", "SLURM_LOCALID": "1",
    "SLURM_NODEID": "0", "SLURM_NODELIST": "node1", "SLURM_JOB_NUM_NODES": "2",
}  # fmt: skip
TORCHRUN = {
    "RANK": "1",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "2",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "x",
    "MASTER_PORT": "1",
}
LIGHTNING = {"PL_TRAINER_MAX_EPOCHS": "7", "PL_TRAINER_DEVICES": "2", "PL_GLOBAL_SEED": "9", "PL_SEED_WORKERS": "1"}
MATPLOTLIB = {"MPLBACKEND": "module://not_installed.backend"}
LOCALE = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
LAUNCHERS = {
    "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMI_RANK": "1", "PMI_SIZE": "2", "LSB_JOBID": "1",
    "LSB_HOSTS": "batch node1 node1", "LSB_DJOB_RANKFILE": "/nonexistent", "KUBERNETES_PORT": "tcp://10.0.0.1:443",
    "TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_USE_AGENT_STORE": "True",
}  # fmt: skip
INTERACTIVE = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "bash", "SLURM_NTASKS": "8"}
TERMINAL = {"NO_COLOR": "1", "FORCE_COLOR": "1", "COLUMNS": "0", "TERM": "dumb", "HYDRA_FULL_ERROR": "0"}
INTERPRETER = {"PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error"}
EVERYTHING = {
    **SLURM, **TORCHRUN, **LIGHTNING, **MATPLOTLIB, **LOCALE, "HOME": None, "PYTHONUNBUFFERED": "1",
}  # fmt: skip
# Variables to set (None: to remove), and the shell's line; "$@" is the command.
ENVIRONMENTS = {
    "everything_and_a_reader_that_stops": (EVERYTHING, 'set -o pipefail; "$@" | head -2'),
    "closed_streams_in_a_read_only_folder": ({}, 'exec <&- >&- 2>&-; cd /proc; "$@"'),
    "slurm": (SLURM, '"$@"'),
    "torchrun": (TORCHRUN, '"$@"'),
    "lightning": (LIGHTNING, '"$@"'),
    "launchers": (LAUNCHERS, '"$@"'),
    "interactive": (INTERACTIVE, '"$@"'),
    "terminal": (TERMINAL, '"$@"'),
    "interpreter": (INTERPRETER, '"$@"'),
    "no_gpu": ({"CUDA_VISIBLE_DEVICES": "-1"}, '"$@"'),
    "backend": (MATPLOTLIB, '"$@"'),
    "locale": (LOCALE, '"$@"'),
    "no_home": ({"HOME": None}, '"$@"'),
    "home_missing": ({"HOME": "/nonexistent"}, '"$@"'),
    "home_read_only": ({"HOME": "/proc"}, '"$@"'),
    "closed_stdout": ({}, 'exec >&-; "$@"'),
    "closed_stderr": ({}, 'exec 2>&-; "$@"'),
    "read_only_folder": ({}, 'cd /proc; "$@"'),
}
FAST = list(ENVIRONMENTS)[:1]


def metrics(folder):
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in read_history(folder)]


@pytest.fixture(scope="module")
def plain(faces, tmp_path_factory):
    """The metrics of the run in the process of the tests."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        train(compose("train", [*SETTINGS, f"data.root={faces}", f"output_dir={folder}"]))
    return metrics(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and bash")
@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in ENVIRONMENTS]
)
def test_environment_does_not_change_a_run(faces, tmp_path, plain, name):
    variables, script = ENVIRONMENTS[name]
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfigure.figsize: nonsense\n")
    environment = {**os.environ, "MATPLOTLIBRC": str(tmp_path), **variables}
    environment = {key: value for key, value in environment.items() if value is not None}
    folder = tmp_path / "run"
    arguments = [*SETTINGS, f"data.root={faces}", f"hydra.run.dir={folder}"]
    command = ["bash", "-c", script, "bash", sys.executable, "-m", "fer_exp.train", *arguments]
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    assert metrics(folder) == plain
    summary = read_summary(folder)
    assert (summary["status"], summary["missing"]) == ("completed", [])
    assert any("scheduler.patience" in warning for warning in summary["warnings"])  # of the config
    assert "Completed after 1 epoch" in (folder / "train.log").read_text()
    for pattern in ("tensorboard/*/train", "tensorboard/*/validation", "checkpoints/best.ckpt", "*.png"):
        assert list(folder.glob(pattern)), pattern
