"""How commands are begun and ended, and what goes wrong in them said in words for the person who gave them.

Hydra raises much of that, in words of its own.
"""

import argparse
import errno
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import env_override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fer_exp.config.schema import CONFIG_DIR, GROUPS, OPTIONAL_GROUPS
from fer_exp.errors import UserError, one_line
from fer_exp.plots.terminal import protect_streams
from fer_exp.runs.folder import check_output_dir, remove_empty_run_dir

log = logging.getLogger(__name__)

_TRACE = "HYDRA_FULL_ERROR"  # set by a person who wants to see where, as Hydra's documentation says


def call(command: Callable[[], Any]) -> None:
    """Call a function that ``hydra.main`` made; where Hydra raises, say why, and exit with status 1."""
    protect_streams()
    os.environ["MPLBACKEND"] = "agg"  # importing matplotlib fails under a notebook's backend that is not installed
    try:
        with env_override({_TRACE: "1"}):  # Hydra then raises what it would print in words of its own, or trace
            command()
            sys.stdout.flush()
    except BrokenPipeError:  # whoever reads, as `--help | head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        sys.exit(1)
    except Exception as error:
        if _TRACE in os.environ:
            raise
        print(f"Error: {_explain(error, sys.argv[1:])}", file=sys.stderr)
        sys.exit(1)


def carry_out(work: Callable[[DictConfig], object], cfg: DictConfig) -> None:
    """Do what a command does in a folder of its own; where it cannot, or is interrupted, say so and leave no folder.

    Args:
        work: takes the composed configuration.
        cfg: the composed configuration.
    """
    try:
        check_output_dir(cfg)
        work(cfg)
    except UserError as error:
        log.error("Error: %s", error)
        status = 1
    except KeyboardInterrupt:
        log.info("Interrupted.")
        status = 130
    else:
        return
    remove_empty_run_dir(Path(HydraConfig.get().runtime.output_dir))
    sys.exit(status)


def _explain(error: Exception, arguments: Sequence[str]) -> str:
    """Words for what Hydra raised before the training began: what is wrong, where, and what to change.

    Args:
        error: what it raised.
        arguments: of the command line.
    """
    if isinstance(error, BrokenProcessPool):
        return (
            "a worker was killed, for example because the memory was full. The jobs that it ran have no result; use "
            "fewer workers (hydra.launcher.n_jobs), or repeat the command."
        )
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: {error.problem}; mend the file."
    if isinstance(error, yaml.YAMLError):
        return f"a configuration file cannot be read: {one_line(error)}."
    if isinstance(error, UnicodeDecodeError):
        files = ", ".join(map(str, _not_utf8(arguments))) or "a configuration file"
        return f"{files}: this is no text in UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8."
    if isinstance(error, HydraException):
        return _explain_key(str(error), arguments) or _in_lines(error)
    causes = [each for each in (error, error.__cause__, error.__context__) if isinstance(each, OSError)]
    cause = next((each for each in causes if each.filename), None)
    if cause is not None and str(cause.filename).endswith((".yaml", ".yml")):
        return f"{cause.filename} cannot be read ({cause.strerror})."
    if cause is not None and cause.errno == errno.ENAMETOOLONG:
        return f"{cause.filename}: {cause.strerror}."
    if cause is not None:
        return f"{cause.filename} cannot be written ({cause.strerror}): choose another hydra.run.dir."
    for word in arguments:
        group = word.lstrip("+~").partition("=")[0]
        if group in (*GROUPS, "experiment") and not _names_a_choice(word):
            none = f"; {group}=none for none" if group in OPTIONAL_GROUPS else ""
            return f"{word}: expected the name of a choice: {', '.join(_choices(group))}{none}"
    if isinstance(error, ValueError):
        return one_line(error)
    return f"{type(error).__name__} {one_line(error)}".strip() + "; HYDRA_FULL_ERROR=1 shows where."


def _explain_key(said: str, arguments: Sequence[str]) -> str | None:
    """A key that is not there may be one of another choice: ``data.root`` of ``data=folders``."""
    found = re.match(r"Could not override '([^']+)'", said)
    if not found:
        return None
    word = next((word for word in arguments if word.partition("=")[0] == found[1]), found[1])
    group, _, key = found[1].partition(".")
    have = [choice for choice, node in _choices(group).items() if key in node] if key else []
    if not key:
        meant = [f"{place}.{group}" for place in GROUPS if any(group in node for node in _choices(place).values())]
        hint = f"did you mean {' or '.join(meant)}?" if meant else "--cfg job prints those there are."
        return f"{word}: there is no such key; {hint}"
    if not have:
        return f"{word}: there is no such key; --cfg job prints those there are."
    return f"{word}: this is a key of {group}={' or '.join(have)}, which is not chosen: give {group}={have[0]} {word}"


def _choices(group: str) -> dict[str, Mapping[str, Any]]:
    """What ``conf/`` offers in a group: the content of each file, by name."""
    choices = {}
    for path in sorted((CONFIG_DIR / group).glob("*.yaml")):
        node = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        choices[path.stem] = node.get(group, node)  # a file of the package _global_ names its group
    return choices


def _names_a_choice(word: str) -> bool:
    with suppress(HydraException):
        return isinstance(OverridesParser.create().parse_override(word).value(), str)
    return False


def _not_utf8(arguments: Sequence[str]) -> Iterator[Path]:
    """Files of ``--config-dir`` that are no text."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd", type=Path)
    folder = parser.parse_known_args(arguments)[0].config_dir
    for path in sorted(folder.rglob("*.yaml")) if folder else ():
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            yield path
        except OSError:  # a folder of that name, or one that Hydra did not read either
            continue


def _in_lines(error: BaseException) -> str:
    """Hydra's own message, which lists choices a line each, without its search path and its grammar."""
    text = re.sub(r" expecting (\{.*\}|<EOF>)", "", str(error).partition("Config search path:")[0]).strip()
    text = re.sub(r"^Error |^Lexer\w+: |\nSee https://hydra\.cc/\S+ for details$", "", text)
    if "/override_grammar/" in str(error):
        text = ": ".join(text.splitlines())
        return f"{text}; expected KEY=VALUE, with quotes around a value with signs, as in \"data.root='faces (1)'\""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    if cause is None or one_line(cause) in one_line(error):
        return text
    return f"{text or 'a value of the configuration cannot be read:'} {one_line(cause)}"
