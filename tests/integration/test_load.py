"""Many runs: one after the other in one process, and several at the same time on one machine."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from fer_exp.runs.record import read_history

TIMES = ("train_seconds", "val_seconds")

# The command in a process that prints its resident memory (MiB) and its number of open files after each run.
MEASURED = """
import os, re, shutil
from pathlib import Path
import fer_exp.train

original = fer_exp.train.train

def train(cfg, verbose):
    value = original(cfg, verbose)
    shutil.rmtree(Path(cfg.output_dir) / "checkpoints")  # 54 MB a run
    memory = int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
    print("measured", memory, len(os.listdir("/proc/self/fd")), flush=True)
    return value

fer_exp.train.train = train
fer_exp.train.main()
"""


@pytest.mark.slow
def test_memory_and_open_files_do_not_grow_over_two_hundred_runs(child, faces, tmp_path):
    ended = child(
        "-c", MEASURED, "-m", "seed=range(200)", "data=folders", f"data.root={faces}", "data.batch_size=10",
        "optimizer=sgd", "trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1",
        cwd=tmp_path,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    measured = [line.split()[1:] for line in ended.stdout.splitlines() if line.startswith("measured")]
    memory, files = [float(mib) for mib, _ in measured], [int(number) for _, number in measured]
    assert len(measured) == 200
    assert max(memory[10:]) - memory[9] < 50
    assert max(files[10:]) <= files[9]


@pytest.mark.slow
def test_four_runs_at_once_share_one_cache(child, tmp_path):
    settings = (
        "data.train=70", "data.validation=35", "data.batch_size=10", "trainer.max_epochs=1",
        "trainer.precision=32-true", "logger=none", f"data.cache_dir={tmp_path / 'cache'}",
    )  # fmt: skip

    def run(number):
        return child("-m", "fer_exp.train", *settings, f"hydra.run.dir={number}", cwd=tmp_path)

    with ThreadPoolExecutor(4) as pool:
        for ended in pool.map(run, range(4)):
            assert ended.returncode == 0, ended.stdout + ended.stderr
    histories = [
        [{k: v for k, v in row.items() if k not in TIMES} for row in read_history(tmp_path / str(number))]
        for number in range(4)
    ]
    assert histories == [histories[0]] * 4
    kept = sorted(path.name.split("-")[0] for path in (tmp_path / "cache").iterdir())
    assert kept == ["synthetic", "train", "train", "validation", "validation"]  # a .npy and a .json each
    assert len(list((tmp_path / "cache/synthetic").iterdir())) == 1
