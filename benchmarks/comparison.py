"""Measure how long a comparison of many runs takes: ``python -m benchmarks.comparison 200 5000``.

Writes that many records of 50 epochs (three optimizers, 25 learning rates, and seeds), compares them with the command,
and prints seconds and peak memory.
"""

import argparse
import copy
import json
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.measuring import ROOT, run_python
from fer_exp.runs.record import RunRecord

EPOCHS = 50
OPTIMIZERS = ("adam", "sgd", "rmsprop")
LEARNING_RATES = 25
EXAMPLE = ROOT / "docs/results/fer2013_quick"  # gives the facts that all written records share
IMPORTS = "import fer_exp.compare, fer_exp.comparison.report, fer_exp.comparison.load"


def write_records(folder: Path, runs: int) -> None:
    """Write ``runs`` records below ``folder``, as a sweep does."""
    noise = np.random.default_rng(0)
    base = json.loads((EXAMPLE / "summary.json").read_text(encoding="utf-8"))
    for job in range(runs):
        optimizer, lr = OPTIMIZERS[job % 3], float(f"{10 ** (-4 + job // 3 % LEARNING_RATES / 8):.3g}")
        facts = copy.deepcopy(
            {key: base[key] for key in ("config", "choices", "params", "data", "environment", "monitor")}
        )
        facts["config"]["optimizer"] |= {"_target_": f"torch.optim.{optimizer.title()}", "lr": lr}
        facts["config"]["seed"] = facts["seed"] = job // (3 * LEARNING_RATES)
        facts["choices"]["optimizer"] = optimizer
        accuracy = 0.6 * (1 - 0.9 ** np.arange(1, EPOCHS + 1)) + noise.normal(0, 0.01, EPOCHS)
        rows = [
            {
                **{"epoch": epoch, "step": 224 * epoch, "lr": lr, "train_loss": 2 - value, "train_acc": value},
                **{"val_loss": 2 - value, "val_acc": value, "val_macro_f1": value - 0.05},
                **{"train_seconds": 30.0, "val_seconds": 2.0},
            }
            for epoch, value in enumerate(accuracy.tolist(), 1)
        ]
        record = RunRecord(folder / str(job), facts)
        record.write_epochs(rows)
        record.finish("completed", 32.0 * EPOCHS, stopped_by="max_epochs")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.comparison", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="*", type=int, default=[200, 5000], help="numbers of records to compare")
    counts = parser.parse_args(arguments).runs
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    run_python("-c", IMPORTS)  # fills the file cache
    for runs in counts:
        with tempfile.TemporaryDirectory() as folder:
            write_records(Path(folder) / "sweep", runs)
            imports = run_python("-c", IMPORTS)
            command = ("-m", "fer_exp.compare", f"{folder}/sweep", "--output", f"{folder}/report")
            by_optimizer = run_python(*command)
            by_lr = run_python(*command, "--group-by", "optimizer,optimizer.lr")
        print(
            f"{runs} runs: {by_optimizer.seconds:.1f} s by optimizer, {by_lr.seconds:.1f} s by optimizer and learning "
            f"rate, {imports.seconds:.1f} s of each for imports; peak memory "
            f"{max(by_optimizer.peak_mib, by_lr.peak_mib):.0f} MiB"
        )


if __name__ == "__main__":
    main()
