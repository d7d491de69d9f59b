"""Resume a run: what an earlier attempt left in its folder, or the checkpoint that the command names."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fer_exp.config.schema import TRUSTED_PACKAGES, plain
from fer_exp.errors import UserError
from fer_exp.runs.config_diff import flatten
from fer_exp.runs.folder import find_resume_state, run_of
from fer_exp.runs.record import read_summary

log = logging.getLogger(__name__)


def prepare_resume(cfg: DictConfig, folder: Path) -> bool:
    """Set ``cfg.resume`` to the checkpoint to resume, or to None; complete the settings from a named checkpoint.

    Jobs of a sweep and runs with ``resume=auto`` resume what an earlier attempt left in ``folder``.

    Returns:
        False if the earlier attempt finished the run.

    Raises:
        UserError: the folder holds another run or other files, or the checkpoint cannot be read.
    """
    if cfg.resume != "auto" and HydraConfig.get().mode != RunMode.MULTIRUN:
        if cfg.resume is not None:
            use_recorded_config(cfg, list(HydraConfig.get().overrides.task))
        return True
    state, checkpoint = find_resume_state(folder, plain(cfg))
    if state == "finished":
        log.info("This run is already finished.")
        return False
    if checkpoint is not None:
        log.info("Resuming from %s.", checkpoint)
    cfg.resume = None if checkpoint is None else str(checkpoint)
    return True


def use_recorded_config(cfg: DictConfig, overrides: list[str]) -> None:
    """Replace the settings in ``cfg`` by those of the checkpoint ``cfg.resume``, except the overridden ones.

    With ``experiment=...`` on the command line ``cfg`` stays as it is.

    Args:
        cfg: the composed config.
        overrides: of the command line, without Hydra's own keys.

    Raises:
        UserError: the checkpoint cannot be read, or names classes of packages that are not trusted.
    """
    from fer_exp.runs.checkpoint import load_checkpoint

    settings = load_checkpoint(cfg.resume)["hyper_parameters"]
    choices = _recorded_choices(Path(cfg.resume), settings["run_id"])
    parsed = OverridesParser.create().parse_overrides(overrides)
    # data=folders for a run with data=folders overrides nothing.
    given = [each.key_or_group for each in parsed if choices.get(each.key_or_group) != each.value()]
    if "experiment" in given:
        return
    composed = plain(cfg)
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    overridden = [*given, "output_dir"]
    merged = OmegaConf.create({**composed, **settings["config"]})
    # Values that interpolate an overridden key follow it: ${monitor}, ${output_dir}/checkpoints.
    for key, text in flatten(raw).items():
        if key in flatten(settings["config"]) and any(f"${{{name}}}" in str(text) for name in overridden):
            overridden.append(key)
    values = OmegaConf.create(composed)
    for key in overridden:
        OmegaConf.update(merged, key, OmegaConf.select(values, key), merge=False, force_add=True)
    own = set(_targets(composed))
    for target in _targets(plain(merged)):
        if target not in own and target.partition(".")[0] not in TRUSTED_PACKAGES:
            raise UserError(
                f"resume={cfg.resume}: the checkpoint names {target}, which is not part of "
                f"{', '.join(TRUSTED_PACKAGES)}. If you trust it, also choose its group on the command line, for "
                f"example optimizer=NAME."
            )
    with open_dict(cfg):
        for name in merged:
            cfg[str(name)] = merged[name]
    _set_choices(choices, given)


def _recorded_choices(checkpoint: Path, run_id: str) -> dict[str, str]:
    """The choices of config groups of the run that wrote the checkpoint; empty if its record is not beside it."""
    with suppress(OSError, ValueError):
        summary = read_summary(run_of(checkpoint))
        if summary["run_id"] == run_id:
            return dict(summary["choices"])
    return {}


def _set_choices(recorded: Mapping[str, str], given: list[str]) -> None:
    choices: Any = HydraConfig.get().runtime.choices
    with read_write(choices), open_dict(choices):
        for group in choices:
            if not str(group).startswith("hydra/") and group not in given:
                choices[group] = recorded.get(str(group))


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping) and "_target_" in node:
        yield str(node["_target_"])
    children = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    for child in children:
        yield from _targets(child)
