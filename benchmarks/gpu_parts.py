"""The parts of ``benchmarks.gpu``: each returns ``rows`` (its measurements) and what later parts need."""

import csv
import json
import re
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders.turns import Contender
from benchmarks.gpu_session import OutOfTimeError, Part, Session
from benchmarks.measuring import last_lines
from benchmarks.networks import build_network, describe

GPU_TESTS = "tests/training"
PROBE = "+callbacks.probe._target_=benchmarks.callbacks.Probe"
MAX_EPOCHS = 300  # of a long run: published recipes for FER2013 take 150 to 300
MIN_EPOCHS = 4  # the warm-up of experiment=strong takes 500 steps
START_AND_EVALUATION = 60  # seconds of a long run beside its epochs
MARGIN = 0.85  # fraction of the time left that a long run may plan with
EPOCH_TARGET = "0.5, beyond that 0.25"

Row = dict[str, Any]


def row(what: str, value: Any, unit: str = "", target: str = "") -> Row:
    """One measurement of the report."""
    return {"what": what, "value": value, "unit": unit, "target": target}


def read_history(run: Path) -> list[dict[str, float]]:
    """The epochs of a run."""
    with (run / "history.csv").open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in line.items() if value} for line in csv.DictReader(file)]


def problem(run: Path) -> str | None:
    """The status and error of a run that is not completed."""
    if not (run / "summary.json").exists():
        return "failed: no record"
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return None if summary["status"] == "completed" else f"{summary['status']}: {summary.get('error')}"


def epoch_seconds(history: Sequence[dict[str, float]]) -> float:
    """Median seconds of training and validation of the epochs after the first."""
    return statistics.median(epoch["train_seconds"] + epoch["val_seconds"] for epoch in history[1:])


def images_per_second(history: Sequence[dict[str, float]], batch_size: int) -> float:
    """Median training speed of the epochs after the first."""
    images = history[0]["step"] * batch_size
    return statistics.median(images / epoch["train_seconds"] for epoch in history[1:])


def sweep(
    session: Session, name: str, key: str, values: Sequence[str], *overrides: str
) -> tuple[list[Row], dict[str, Path]]:
    """Train once for each value of ``key``, in one process.

    Returns:
        A row for each run that is not completed; the folders of the completed runs, by value.

    Raises:
        RuntimeError: no run left a record.
    """
    folder = session.empty_folder(name)
    _, output = session.train(
        *overrides, f"{key}={','.join(values)}", f"hydra.sweep.dir={folder}", sweep=True, check=False
    )
    problems = {value: problem(folder / str(job)) for job, value in enumerate(values)}
    if not list(folder.glob("*/summary.json")):
        raise RuntimeError(last_lines(output))
    completed = {value: folder / str(job) for job, value in enumerate(values) if problems[value] is None}
    return [row(f"{key}={value}", text) for value, text in problems.items() if text], completed


def graph_values(session: Session) -> list[str]:
    """The values of ``cuda_graph`` to compare; a CPU has only one."""
    return ["false"] if session.miniature else ["false", "true"]


def fastest_graph(session: Session) -> str:
    """The override of ``cuda_graph`` that was faster in ``epoch_time``."""
    return f"cuda_graph={session.parts.get('epoch_time', {}).get('cuda_graph', 'false')}"


def epochs(session: Session, count: int) -> str:
    """The override for ``count`` epochs; two in miniature."""
    return f"trainer.max_epochs={2 if session.miniature else count}"


def gpu_tests(session: Session) -> dict[str, Any]:
    """The tests that need a CUDA device."""
    _, output = session.python("-m", "pytest", GPU_TESTS, "-m", "gpu", "-rA", "-p", "no:cacheprovider", check=False)
    counts = {name: int(n) for n, name in re.findall(r"(\d+) (passed|failed|skipped|error)", last_lines(output, 1))}
    rows = [row(name, counts.get(name, 0), "tests") for name in ("passed", "failed", "skipped", "error")]
    return {"rows": rows, "output": last_lines(output, 60)}


def epoch_time(session: Session) -> dict[str, Any]:
    """An epoch of the notebook's network in bfloat16, with and without CUDA graphs, beside a plain PyTorch loop."""
    graphs = graph_values(session)
    product = matrix_product_flops(session)
    rows = [row("bfloat16 matrix product", product / 1e12, "TFLOP/s")]
    rows += [plain_loop(session, graph) for graph in graphs]
    precision = "trainer.precision=" + ("auto" if session.miniature else "bf16-mixed")
    common = ("experiment=notebook", "callbacks=fixed_budget", PROBE, precision, epochs(session, 6))
    problems, runs = sweep(session, "epoch_time", "cuda_graph", graphs, *common)
    rows += problems
    flop = 3e9 * describe(build_network("notebook_cnn"))["gflop"]  # of a training step, for each image
    seconds = {}
    for graph, run in runs.items():
        history, probe = read_history(run), json.loads((run / "probe.json").read_text())
        speed = images_per_second(history, session.batch_size)
        seconds[graph] = epoch_seconds(history)
        name = f"cuda_graph={graph}:"
        if graph == graphs[0]:  # the next run starts in the same process
            rows.append(row(f"{name} start to first step", probe["first_step_seconds"], "s"))
        rows += [
            row(f"{name} epoch after the first", seconds[graph], "s", EPOCH_TARGET),
            row(f"{name} training", speed, "images/s"),
            row(f"{name} fraction of the matrix product's speed", speed * flop / product),
            row(f"{name} host synchronizations per step", probe["syncs_per_step"], "", "0"),
            row(f"{name} peak memory", probe["peak_mib"], "MiB"),
        ]
    return {"rows": rows, "cuda_graph": min(seconds, key=lambda graph: seconds[graph], default="false")}


def plain_loop(session: Session, graph: str) -> Row:
    """The epoch time of the plain PyTorch loop; a failure is a row too."""
    name = f"plain loop, cuda_graph={graph}: epoch after the first"
    print(f"  {name}", flush=True)
    train, validation = session.header["images"]
    settings = {"root": str(session.data), "batch_size": session.batch_size, "cuda_graph": graph == "true"}
    try:
        with Contender("benchmarks.contenders.plain", settings, env=session.environment()) as contender:
            turns = [contender.turn(train // session.batch_size, -(-validation // session.batch_size)) for _ in "123"]
    except RuntimeError as error:
        return row(name, f"failed: {last_lines(str(error), 1)}")
    return row(name, statistics.median(turn["train_seconds"] + turn["val_seconds"] for turn in turns[1:]), "s")


def matrix_product_flops(session: Session) -> float:
    """Floating-point operations per second of a large bfloat16 matrix product."""
    import torch

    device, size, repeats = ("cpu", 512, 3) if session.miniature else ("cuda", 8192, 20)
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))

    def seconds() -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            product = a @ b
        product[0, 0].item()  # waits for the device
        return time.perf_counter() - start

    seconds()
    return 2 * size**3 * repeats / seconds()


def graph_results(session: Session) -> dict[str, Any]:
    """Whether CUDA graphs give the same losses."""
    graphs = graph_values(session)
    common = ("experiment=notebook", "callbacks=fixed_budget", epochs(session, 2), "trainer.limit_train_batches=50")
    exact = ("model.dropout=0", "trainer.precision=32-true")
    rows, runs = sweep(session, "graph_results", "cuda_graph", graphs, *common, *exact)
    losses = [[epoch["train_loss"] for epoch in read_history(run)] for run in runs.values()]
    difference = max(abs(a / b - 1) for a, b in zip(*losses, strict=True)) if len(losses) == 2 else None
    rows.append(row("largest relative difference of train_loss", difference, "", "below 0.01"))
    return {"rows": rows}


def optimizers(session: Session) -> dict[str, Any]:
    """The notebook's comparison of three optimizers, in one process."""
    start = time.monotonic()
    names = ("adam", "sgd", "rmsprop")
    limit = ("trainer.max_epochs=2",) if session.miniature else ()
    rows, runs = sweep(session, "optimizers", "optimizer", names, "experiment=notebook", fastest_graph(session), *limit)
    rows.insert(0, row("whole command", time.monotonic() - start, "s", "60, beyond that 25"))
    for name, run in runs.items():
        history = read_history(run)
        rows += [
            row(f"{name}: epochs", len(history)),
            row(f"{name}: best val_acc", 100 * max(epoch["val_acc"] for epoch in history), "%"),
        ]
    shutil.copy(session.folder("optimizers") / "comparison.md", session.output / "optimizers.md")
    return {"rows": rows}


def networks(session: Session) -> dict[str, Any]:
    """Training speed of other networks at 48 pixels, and of the long recipe."""
    common = ("callbacks=fixed_budget", "scheduler=none", epochs(session, 3), fastest_graph(session))
    rows, seconds = [], {}
    for recipe, models in (("notebook", ("vgg", "resnet18", "timm")), ("strong", ("notebook_cnn", "vgg"))):
        problems, runs = sweep(session, f"networks_{recipe}", "model", models, f"experiment={recipe}", *common)
        rows += problems
        for model, run in runs.items():
            history = read_history(run)
            speed = images_per_second(history, session.batch_size)
            rows.append(row(f"experiment={recipe} model={model}", speed, "images/s"))
            if recipe == "strong":
                seconds[model] = epoch_seconds(history)
    return {"rows": rows, "strong_epoch_seconds": seconds}


def strong_epochs(session: Session, model: str, fraction: float) -> int:
    """The number of epochs that fit into a fraction of the time left.

    Raises:
        OutOfTimeError: fewer than ``MIN_EPOCHS`` fit.
        RuntimeError: the part ``networks`` measured no epoch of this model.
    """
    seconds = session.parts.get("networks", {}).get("strong_epoch_seconds", {}).get(model)
    if seconds is None:
        raise RuntimeError(f"the part `networks` measured no epoch of experiment=strong model={model}")
    count = int((MARGIN * fraction * session.seconds_left - START_AND_EVALUATION) / seconds)
    if count < MIN_EPOCHS:
        raise OutOfTimeError(f"{session.seconds_left:.0f} s are too few for a long run")
    return min(count, MAX_EPOCHS)


def strong(model: str, fraction: float, target: str) -> Part:
    """A part that trains and evaluates ``experiment=strong``.

    Args:
        model: value of the key ``model``.
        fraction: of the time left that it may take.
        target: validation accuracy to reach, in percent.
    """
    name = f"strong_{model}"

    def part(session: Session) -> dict[str, Any]:
        count = 2 if session.miniature else strong_epochs(session, model, fraction)
        warmup = ("scheduler.warmup=2",) if session.miniature else ()
        run = session.empty_folder(name)
        recipe = ("experiment=strong", f"model={model}", f"trainer.max_epochs={count}", *warmup)
        try:
            session.train(*recipe, fastest_graph(session), f"hydra.run.dir={run}")
        finally:  # also for an interrupted run
            for file in (run / "history.csv", run / "summary.json"):
                if file.exists():
                    shutil.copy(file, session.output / f"{name}_{file.name}")
        history = read_history(run)
        rows = [
            row("epochs", len(history)),
            row("epoch after the first", epoch_seconds(history), "s"),
            row("best val_acc", 100 * max(epoch["val_acc"] for epoch in history), "%", target),
        ]
        return {"rows": rows + accuracies(session, run, target)}

    part.__doc__ = f"experiment=strong model={model}, with a schedule sized to the time left, then its evaluation."
    return part


def accuracies(session: Session, run: Path, target: str) -> list[Row]:
    """The accuracy of a run with each test-time augmentation; a failed evaluation is a row too."""
    folder = run / "evaluation"
    overrides = (f"run={run}", "tta=[none,flip,ten_crop]", f"hydra.run.dir={folder}", "trainer.precision=auto")
    try:
        session.python("-m", "fer_exp.evaluate", *overrides)
    except (OutOfTimeError, RuntimeError) as error:
        return [row("evaluation", f"failed: {last_lines(str(error), 1)}")]
    scores = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["tta"]
    return [row(f"accuracy, tta={tta}", 100 * score["accuracy"]["value"], "%", target) for tta, score in scores.items()]


PARTS: dict[str, Part] = {
    "gpu_tests": gpu_tests,
    "epoch_time": epoch_time,
    "graph_results": graph_results,
    "optimizers": optimizers,
    "networks": networks,
    "strong_notebook_cnn": strong("notebook_cnn", 0.5, "70"),
    "strong_vgg": strong("vgg", 1.0, "72.5"),
}
