"""The fair study: tune each arm with the same budget, then train the winners on new seeds.

The protocol follows AlgoPerf (Dahl et al. 2023) and the deep learning tuning playbook (Godbole et al. 2023):

1. An arm is a choice under comparison, such as an optimizer, with its own search space for the settings that are not
   compared, above all the learning rate.
2. Each arm gets the same number of trials, at points of the same quasi-random sequence (scrambled Halton), all with the
   same seed and number of epochs. A diverged trial counts like any other.
3. Trials are validated on images held out of the training folder. The validation folder is not used.
4. The best trial of each arm is trained again on the whole training folder, with seeds that no trial had. Only these
   runs report on the validation folder.

It is a Hydra sweeper, so any launcher runs its jobs.
"""

import logging
import math
from collections.abc import Mapping, Sequence
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

from fer_exp.config.schema import SEED
from fer_exp.errors import UserError, one_line, plural
from fer_exp.metrics import format_value
from fer_exp.runs.sweep_record import read_sweep, write_sweep
from fer_exp.sweeps.jobs import refusals, refuse

if TYPE_CHECKING:
    from fer_exp.comparison.load import Run

log = logging.getLogger(__name__)

Job = list[str]  # overrides


class Study(Sweeper):
    """Runs the protocol; ``conf/hydra/sweeper/study.yaml`` has its settings.

    Args:
        arms: for each name the keys of the arm: fixed values (``optimizer: sgd``), and search spaces in Hydra's grammar
            (``optimizer.lr: tag(log, interval(1e-4, 1))``, ``data.batch_size: int(interval(16, 128))``,
            ``optimizer.momentum: choice(0, 0.9)``).
        trials: number of trials of each arm.
        seeds: number of new seeds that each winner is trained with.
        val_fraction: fraction of the training images that trials are validated on.
        sampler_seed: seed of the scrambled sequence.
    """

    def __init__(self, arms: DictConfig, trials: int, seeds: int, val_fraction: float, sampler_seed: int) -> None:
        super().__init__()
        self.arms: dict[str, dict[str, Any]] = OmegaConf.to_container(arms)  # type: ignore[assignment]
        self.trials, self.seeds, self.val_fraction, self.sampler_seed = trials, seeds, val_fraction, sampler_seed

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Create the launcher, as Hydra requires."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Run the trials, choose the winners and train them again; exit with an error if the settings are not fair.

        Args:
            arguments: overrides of the command line, for all jobs.
        """
        assert self.config is not None
        try:
            self._check(arguments)
            arms = {name: parse_arm(name, space) for name, space in self.arms.items()}
        except UserError as error:
            refuse(error)
        folder, seed = Path(self.config.hydra.sweep.dir).absolute(), self.config.seed
        # A choice is final: a failed trial that succeeds in a later attempt does not change what was reported.
        winners = read_sweep(folder).winners
        self._write_plan(folder, arms, winners, expected_winners=len(arms))
        points = [
            (name, point) for name, arm in arms.items() for point in trial_points(arm, self.trials, self.sampler_seed)
        ]
        jobs = [[*arguments, *point, f"data.val_fraction={self.val_fraction}", f"seed={seed}"] for _, point in points]
        self.validate_batch_is_legal(jobs)  # an error in the last arm is found before the first trains
        log.info("Study: %s for each of %s.", plural(self.trials, "trial"), ", ".join(arms))
        trials = list(self.launcher.launch(jobs, 0))
        if refused := refusals(folder):
            refuse(
                UserError(
                    f"{len(refused)} of the {len(jobs)} trials were refused for the reasons above, so no winner is "
                    f"chosen. Fix that, or choose another hydra.sweep.dir."
                )
            )
        winners |= self._choose(points, trials, winners)
        self._write_plan(folder, arms, winners, expected_winners=len(winners))
        seeds = [seed + i for i in range(1, self.seeds + 1)]
        log.info("Study: training the winners with the seeds %s.", ", ".join(map(str, seeds)))
        finals = [
            [*arguments, *point, "data.val_fraction=0.0", f"seed={seed}"]
            for point in winners.values()
            for seed in seeds
        ]
        return [*trials, *(self.launcher.launch(finals, len(jobs)) if finals else ())]

    def _write_plan(
        self, folder: Path, arms: Mapping[str, Sequence[Override]], winners: Mapping[str, Job], expected_winners: int
    ) -> None:
        """Record the winners and the jobs: the trials of each arm, then the runs of the winners as they were chosen."""
        keys = [(override.key_or_group, override.is_sweep_override()) for arm in arms.values() for override in arm]
        tuned = list(dict.fromkeys(key for key, is_space in keys if is_space))
        numbers = {name: list(range(i * self.trials, (i + 1) * self.trials)) for i, name in enumerate(arms)}
        for i, name in enumerate(winners):
            first = len(arms) * self.trials + i * self.seeds
            numbers[name] += range(first, first + self.seeds)
        write_sweep(
            folder,
            jobs=len(arms) * self.trials + expected_winners * self.seeds,
            winners=winners,
            swept=list(dict.fromkeys(key for key, _ in keys if key not in tuned)),
            tuned=tuned,
            arms=numbers,
        )

    def _check(self, arguments: Sequence[str]) -> None:
        for name, value in (("trials", self.trials), ("seeds", self.seeds)):
            if not isinstance(value, int) or value < 1:
                raise UserError(f"hydra.sweeper.{name}={value}: expected an integer from 1")
        assert self.config is not None
        seed = self.config.seed
        if seed not in SEED or seed + self.seeds not in SEED:
            raise UserError(f"seed={seed}: expected an integer from 0 to {2**32 - 1 - self.seeds}")
        if not isinstance(self.val_fraction, int | float) or not 0 < self.val_fraction < 1:
            raise UserError(f"hydra.sweeper.val_fraction={self.val_fraction}: expected a number between 0 and 1")
        if not self.arms:
            raise UserError("hydra.sweeper.arms is empty: expected a name and its keys for each arm")
        own = {"seed", "data.val_fraction"}
        for name, space in self.arms.items():
            if given := sorted(own & {*space}):
                raise UserError(f"hydra.sweeper.arms.{name}: the study sets {given[0]}; remove it")
        taken = {key for space in self.arms.values() for key in space} | own
        for override in OverridesParser.create().parse_overrides(list(arguments)):
            key = override.key_or_group
            if override.is_sweep_override():
                raise UserError(
                    f"{override.input_line}: a study varies only its arms; add the key to the arms, or fix it"
                )
            if key in taken - {"seed"}:
                raise UserError(f"{override.input_line}: the study sets {key}; see hydra.sweeper.arms")

    def _choose(
        self, points: Sequence[tuple[str, Job]], returned: Sequence[JobReturn], chosen: Mapping[str, Job]
    ) -> dict[str, Job]:
        """The overrides of the best trial of each arm that is not in ``chosen``, read from the trials' records."""
        from fer_exp.comparison.grouping import default_measure, tune

        # The launcher reports the folders of its jobs, wherever they ran.
        runs = [_read_trial(Path(job.hydra_cfg.hydra.runtime.output_dir)) for job in returned]  # type: ignore[union-attr]
        measure = default_measure([run for run in runs if run and run.counts])
        winners: dict[str, Job] = {}
        for name in self.arms:
            if name in chosen:
                continue
            trials = {run: point for run, (arm, point) in zip(runs, points, strict=True) if run and arm == name}
            tuning = tune(name, list(trials), measure)
            if tuning.winner is None:
                log.error("%s: no trial has a result. This arm is not trained with new seeds.", name)
                continue
            winners[name] = trials[tuning.winner]
            value = format_value("val_acc", tuning.score.of(tuning.winner))
            settings = " ".join(winners[name])
            log.info(
                "%s: the best of %s is %s (val_acc %s on held-out images).",
                name,
                plural(self.trials, "trial"),
                settings,
                value,
            )
            if tuning.boundary_hits:
                keys = ", ".join(tuning.boundary_hits)
                log.warning("Warning: %s: the best %s is at the edge of its range. Use a wider range.", name, keys)
        return winners


def _read_trial(folder: Path) -> "Run | None":
    """The record of a trial; None if it cannot be read."""
    from fer_exp.comparison.load import UnreadableRecordError, read_run

    try:
        return read_run(folder)
    except UnreadableRecordError as error:
        log.error("%s: the record of this trial cannot be read (%s); it is excluded.", folder, one_line(error))
        return None


def parse_arm(name: str, space: Mapping[str, Any]) -> list[Override]:
    """Parse the keys of an arm with Hydra's override grammar.

    Raises:
        UserError: a search space is not a uniform or log-uniform interval, a choice or a range.
    """
    try:
        texts = [f"{key}={'null' if value is None else value}" for key, value in space.items()]
        overrides = OverridesParser.create().parse_overrides(texts)
    except HydraException as error:
        raise UserError(f"hydra.sweeper.arms.{name}: {error}") from error
    for override in overrides:
        if problem := _problem(override):
            raise UserError(f"hydra.sweeper.arms.{name}: {override.input_line}: expected {problem}")
    return overrides


def _problem(override: Override) -> str | None:
    """What is expected instead of an unsuitable search space; None for a suitable one."""
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
    """The overrides of each trial: fixed values, and points of a scrambled Halton sequence in the search spaces.

    Args:
        arm: parsed keys.
        trials: number of points.
        seed: of the sequence. Arms with the same number of search spaces get the same points of the unit cube.
    """
    from scipy.stats import qmc

    spaces = [override for override in arm if override.is_sweep_override()]
    cube = qmc.Halton(len(spaces), scramble=True, rng=seed).random(trials) if spaces else [[]] * trials
    points = []
    for coordinates in map(iter, cube):
        values = [
            _at(o, next(coordinates)) if o.is_sweep_override() else str(o.get_value_element_as_str()) for o in arm
        ]
        points.append([f"{o.get_key_element()}={value}" for o, value in zip(arm, values, strict=True)])
    return points


def _at(space: Override, u: float) -> str:
    """The value of a search space at ``u`` in [0, 1)."""
    if not space.is_interval_sweep():
        values = list(space.sweep_string_iterator())
        return values[int(u * len(values))]
    interval = space.value()
    assert isinstance(interval, IntervalSweep)
    assert interval.start is not None
    assert interval.end is not None
    low, high = float(interval.start), float(interval.end)
    value = low * (high / low) ** u if "log" in interval.tags else low + u * (high - low)
    if isinstance(interval.start, int) and isinstance(interval.end, int):  # for example a batch size
        return str(round(value))
    # Three digits, or down to a thousandth of the interval.
    digits = 2 - math.floor(math.log10(value if "log" in interval.tags else (high - low) / 10))
    return f"{min(max(round(value, digits), low), high):.9g}"
