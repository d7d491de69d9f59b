"""The fair study: tune each arm with the same budget, then run the winners again on seeds that chose nothing.

The protocol, after AlgoPerf (Dahl et al. 2023) and the deep learning tuning playbook (Godbole et al. 2023):

1. An arm is a choice that is under comparison, an optimizer for example, with a space of its own for the settings that
   are none of the question, its learning rate above all.
2. Each arm gets the same number of trials, at points of the same quasi-random sequence (Halton, scrambled), all with
   the same seed and the same number of epochs. A trial that diverges has been spent like any other.
3. Trials are validated on images held out of the training folder. The validation folder is not looked at.
4. The best trial of each arm is run again, on the whole training folder, with seeds that no trial had, and these runs
   alone report on the validation folder.

It is a sweeper of Hydra's, so that any launcher runs its jobs.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from fer_exp.config.schema import is_seed
from fer_exp.errors import UserError, one_line
from fer_exp.runs.sweep_record import read_sweep, write_sweep
from fer_exp.sweeps.jobs import refusals, refuse

if TYPE_CHECKING:
    from fer_exp.comparison.load import Run

log = logging.getLogger(__name__)


class Study(Sweeper):
    """Runs the protocol; ``conf/hydra/sweeper/study.yaml`` has its settings.

    Args:
        arms: for each name the keys that make the arm: fixed values (``optimizer: sgd``), and spaces in Hydra's words
            (``optimizer.lr: tag(log, interval(1e-4, 1))``, ``data.batch_size: int(interval(16, 128))``,
            ``optimizer.momentum: choice(0, 0.9)``).
        trials: of each arm.
        seeds: number of fresh seeds that each winner is run on.
        val_fraction: share of the training images that trials are validated on.
        sampler_seed: scrambles the quasi-random sequence.
    """

    def __init__(self, arms: DictConfig, trials: int, seeds: int, val_fraction: float, sampler_seed: int) -> None:
        super().__init__()
        self.arms: dict[str, dict[str, Any]] = OmegaConf.to_container(arms)  # type: ignore[assignment]
        self.trials, self.seeds, self.val_fraction, self.sampler_seed = trials, seeds, val_fraction, sampler_seed

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's: take what is needed to launch jobs."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Run trials, choose, run the winners again; exit with words where the settings make no fair study.

        Args:
            arguments: overrides of the command line; they hold for all jobs.
        """
        assert self.config is not None
        try:
            self._check(arguments)
            arms = {name: parse_arm(name, space) for name, space in self.arms.items()}
        except UserError as error:
            refuse(error)
        folder, seed = Path(self.config.hydra.sweep.dir).absolute(), self.config.seed
        keys = [(o.key_or_group, _is_space(o)) for arm in arms.values() for o in arm]
        tuned = list(dict.fromkeys(key for key, is_space in keys if is_space))
        first = len(arms) * self.trials  # of the runs that report
        write_sweep(
            folder,
            jobs=first + len(arms) * self.seeds,
            swept=list(dict.fromkeys(key for key, _ in keys if key not in tuned)),
            tuned=tuned,
            arms={name: [*_numbers(0, i, self.trials), *_numbers(first, i, self.seeds)] for i, name in enumerate(arms)},
        )

        points = {name: trial_points(arm, self.trials, self.sampler_seed) for name, arm in arms.items()}
        own = [(name, point) for name in arms for point in points[name]]
        jobs = [[*arguments, *point, f"data.val_fraction={self.val_fraction}", f"seed={seed}"] for _, point in own]
        self.validate_batch_is_legal(jobs)  # a mistake in the last arm is found before the first trains
        log.info("Study: %d trials for each of %s.", self.trials, ", ".join(arms))
        trials = list(self.launcher.launch(jobs, 0))
        if refused := refusals(folder):
            refuse(
                UserError(
                    f"{len(refused)} of the {len(jobs)} trials were refused, for the reasons above: nothing is chosen "
                    f"from what lies in their folders. Mend that, or choose another hydra.sweep.dir."
                )
            )

        # What was chosen once stays: a trial that failed, and is run again later, comes too late to be reported.
        chosen = read_sweep(folder)["winners"]
        winners = {**self._choose(own, trials, chosen), **chosen}
        write_sweep(folder, winners=winners, jobs=len(jobs) + len(winners) * self.seeds)
        fresh = [seed + i for i in range(1, self.seeds + 1)]
        log.info("Study: the winners once more, with the seeds %s.", ", ".join(map(str, fresh)))
        return [*trials, *self._run_winners(arguments, winners, fresh, len(jobs))]

    def _run_winners(
        self, arguments: list[str], winners: Mapping[str, list[str]], seeds: Sequence[int], first: int
    ) -> Iterator[JobReturn]:
        """Run the winners on fresh seeds; each arm has job numbers of its own, winner or not."""
        batches: list[tuple[int, list[list[str]]]] = []
        for i, name in enumerate(self.arms):
            if name not in winners:
                continue
            number = _numbers(first, i, self.seeds).start
            finals = [[*arguments, *winners[name], "data.val_fraction=0.0", f"seed={seed}"] for seed in seeds]
            if batches and batches[-1][0] + len(batches[-1][1]) == number:
                batches[-1][1].extend(finals)
            else:
                batches.append((number, finals))
        for number, finals in batches:
            yield from self.launcher.launch(finals, number)

    def _check(self, arguments: Sequence[str]) -> None:
        for name, value, least in (("trials", self.trials, 1), ("seeds", self.seeds, 1)):
            if not isinstance(value, int) or value < least:
                raise UserError(f"hydra.sweeper.{name}={value}: expected a whole number from {least} up")
        assert self.config is not None
        seed = self.config.seed
        if not is_seed(seed) or not is_seed(seed + self.seeds):
            raise UserError(f"seed={seed}: expected a whole number, and with the {self.seeds} after it below 2**32")
        if not isinstance(self.val_fraction, int | float) or not 0 < self.val_fraction < 1:
            raise UserError(f"hydra.sweeper.val_fraction={self.val_fraction}: expected a share between 0 and 1")
        if not self.arms:
            raise UserError("hydra.sweeper.arms: there is none; expected a name and its keys for each")
        own = {"seed", "data.val_fraction"}
        for name, space in self.arms.items():
            if given := sorted(own & {*space}):
                raise UserError(f"hydra.sweeper.arms.{name}: the study sets {given[0]} itself; leave it out")
        taken = {key for space in self.arms.values() for key in space} | own
        for override in OverridesParser.create().parse_overrides(list(arguments)):
            key = override.key_or_group
            if override.is_sweep_override():
                raise UserError(f"{override.input_line}: a study varies what its arms say; put it into one, or fix it")
            if key in taken - {"seed"}:
                raise UserError(f"{override.input_line}: the study sets {key} itself; see hydra.sweeper.arms")

    def _choose(
        self, jobs: Sequence[tuple[str, list[str]]], returned: Sequence[JobReturn], chosen: Mapping[str, list[str]]
    ) -> dict[str, list[str]]:
        """The winning overrides of each arm that is not among the ``chosen``, read from the trials' records."""
        from fer_exp.comparison.grouping import default_measure
        from fer_exp.comparison.tuning import score, tune

        # Records are read by the folders that the launcher reports, wherever its jobs ran.
        runs = [_read_trial(Path(job.hydra_cfg.hydra.runtime.output_dir)) for job in returned]  # type: ignore[union-attr]
        measure = default_measure([run for run in runs if run and run.counts])
        winners: dict[str, list[str]] = {}
        for name in self.arms:
            if name in chosen:
                continue
            of_arm = {run: point for run, (arm, point) in zip(runs, jobs, strict=True) if run and arm == name}
            tuning = tune(name, list(of_arm), measure)
            if tuning.winner is None:
                log.error("%s: no trial came to a result; it cannot be run on fresh seeds.", name)
                continue
            winners[name] = of_arm[tuning.winner]
            edges = f" {', '.join(tuning.boundary_hits)}: at the end of what was tried." if tuning.boundary_hits else ""
            log.info(
                "%s: the best of %d trials is %s (val_acc %.4f on images held out of training).%s",
                name, self.trials, " ".join(winners[name]), score(tuning.winner, measure), edges,
            )  # fmt: skip
        return winners


def _numbers(first: int, arm: int, each: int) -> range:
    """The job numbers of an arm, where each has as many, from ``first`` on."""
    return range(first + arm * each, first + (arm + 1) * each)


def _read_trial(folder: Path) -> "Run | None":
    """The record of a trial; None where it left none, because its disk was full or its folder removed."""
    from fer_exp.comparison.load import UnreadableRecordError, read_run

    try:
        return read_run(folder)
    except UnreadableRecordError as error:
        log.error("%s: the record of this trial cannot be read (%s); it does not count.", folder, one_line(error))
        return None


def parse_arm(name: str, space: Mapping[str, Any]) -> list[Override]:
    """Read an arm's keys in Hydra's override grammar.

    Raises:
        UserError: a space is no uniform or log-uniform interval and no choice or range.
    """
    try:
        overrides = OverridesParser.create().parse_overrides(
            [f"{key}={_as_text(value)}" for key, value in space.items()]
        )
    except HydraException as error:
        raise UserError(f"hydra.sweeper.arms.{name}: {error}") from error
    for override in overrides:
        if problem := _problem(override):
            raise UserError(f"hydra.sweeper.arms.{name}: {override.input_line}: expected {problem}")
    return overrides


def _problem(override: Override) -> str | None:
    """What was expected in place of a space that trials cannot be drawn from."""
    value = override.value()
    if not override.is_sweep_override():
        return None
    if isinstance(value, IntervalSweep):
        if value.start is None or value.end is None or not value.start < value.end:
            return "interval(LOW, HIGH) with LOW below HIGH"
        if value.tags - {"log"}:
            return "no tag but log: tag(log, interval(LOW, HIGH))"
        return "LOW above 0 for tag(log, interval(LOW, HIGH))" if value.tags and value.start <= 0 else None
    if isinstance(value, ChoiceSweep | RangeSweep) and not value.shuffle:
        return None
    return "interval(LOW, HIGH), tag(log, interval(LOW, HIGH)), choice(A, B) or range(START, STOP)"


def trial_points(arm: Sequence[Override], trials: int, seed: int) -> list[list[str]]:
    """The overrides of each trial: fixed values as they are, spaces at the points of a scrambled Halton sequence.

    Args:
        arm: its keys.
        trials: number of points.
        seed: scrambles the sequence. Arms with equally many spaces get the same points of the unit cube.
    """
    from scipy.stats import qmc

    spaces = [override for override in arm if _is_space(override)]
    cube = qmc.Halton(len(spaces), scramble=True, rng=seed).random(trials) if spaces else [[]] * trials
    points = []
    for coordinates in map(iter, cube):
        values = [_at(o, next(coordinates)) if _is_space(o) else str(o.get_value_element_as_str()) for o in arm]
        points.append([f"{o.get_key_element()}={value}" for o, value in zip(arm, values, strict=True)])
    return points


def _at(space: Override, u: float) -> str:
    """The value at ``u`` in [0, 1) of a space."""
    if not space.is_interval_sweep():
        values = list(space.sweep_string_iterator())
        return values[int(u * len(values))]
    interval = space.value()
    assert isinstance(interval, IntervalSweep)
    assert interval.start is not None
    assert interval.end is not None
    low, high = float(interval.start), float(interval.end)
    value = low * (high / low) ** u if "log" in interval.tags else low + u * (high - low)
    if isinstance(interval.start, int) and isinstance(interval.end, int):  # as for a batch size
        return str(round(value))
    # More digits say nothing: three, or those down to a thousandth of the interval.
    digits = 2 - math.floor(math.log10(value if "log" in interval.tags else (high - low) / 10))
    return f"{min(max(round(value, digits), low), high):.9g}"


def _is_space(override: Override) -> bool:
    return bool(override.is_sweep_override())


def _as_text(value: Any) -> str:
    return "null" if value is None else str(value)
