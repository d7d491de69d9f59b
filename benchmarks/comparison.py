"""How long a comparison of many records takes: ``python -m benchmarks.comparison 200 5000``.

Writes that many records of 50 epochs (three optimizers, 25 learning rates, and seeds), compares them with the command,
and prints seconds and peak memory, imports included, and those of the imports alone.
"""

import argparse
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir

from benchmarks.measuring import run_python
from fer_exp.config.schema import CONFIG_DIR, plain
from fer_exp.metrics import METRICS
from fer_exp.runs.record import LEADING_COLUMNS, TRAILING_COLUMNS, RunRecord

EPOCHS = 50
RATES = 25
IMPORTS = "import fer_exp.compare, fer_exp.comparison.report, fer_exp.comparison.load"


def write_records(folder: Path, runs: int) -> None:
    """Write ``runs`` records below ``folder``, as a sweep would."""
    noise = np.random.default_rng(0)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        configs = {
            name: compose("train", [f"optimizer={name}", f"output_dir={folder}"]) for name in ("adam", "sgd", "rmsprop")
        }
    for job in range(runs):
        name = tuple(configs)[job % 3]
        cfg = configs[name]
        cfg.optimizer.lr, cfg.seed = float(f"{10 ** (-4 + job // 3 % RATES / 8):.3g}"), job // (3 * RATES)
        facts = {
            "config": plain(cfg),
            "choices": {"optimizer": name, "model": "notebook_cnn"},
            "seed": cfg.seed,
            "data": {"train": 28709, "validation": 3589, "fingerprint": {"train": "a" * 64, "validation": "b" * 64}},
            "environment": {"precision": "32-true", "device": "a processor", "threads": 2, "host": f"host{job}"},
        }
        accuracy = 0.6 * (1 - 0.9 ** np.arange(1, EPOCHS + 1)) + noise.normal(0, 0.01, EPOCHS)
        rows = [
            dict(
                zip(
                    (*LEADING_COLUMNS, *METRICS, *TRAILING_COLUMNS),
                    (e, 224 * e, cfg.optimizer.lr, 2 - a, a, 2 - a, a, a - 0.05, 30.0, 2.0),
                    strict=True,
                )
            )
            for e, a in enumerate(accuracy.tolist(), 1)
        ]
        record = RunRecord(folder / str(job), facts)
        record.write_epochs(rows)
        record.finish("completed", 32.0 * EPOCHS, stopped_by="max_epochs")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comparison", description=__doc__)
    parser.add_argument("runs", nargs="*", type=int, default=[200, 5000], help="numbers of records to compare")
    sizes = parser.parse_args(arguments).runs
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    run_python("-c", IMPORTS)  # from a cold disk, it would be measured as well
    for runs in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_records(Path(folder) / "sweep", runs)
            imports = run_python("-c", IMPORTS)
            compare = ("-m", "fer_exp.compare", f"{folder}/sweep", "--output", f"{folder}/report")
            whole = run_python(*compare)
            by_rate = run_python(*compare, "--group-by", "optimizer,optimizer.lr")
        print(
            f"{runs} runs: {whole.seconds:.1f} s, by learning rate too {by_rate.seconds:.1f} s, of it "
            f"{imports.seconds:.1f} s for imports; peak {max(whole.peak_mib, by_rate.peak_mib):.0f} MiB"
        )


if __name__ == "__main__":
    main()
