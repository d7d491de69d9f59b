"""What all commands share: start, path arguments, error messages and exit status."""

import argparse
import errno
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import env_override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fer_exp.config.paths import PATH_KEYS
from fer_exp.config.schema import CONFIG_DIR, GROUPS, OPTIONAL_GROUPS, RENAMED_KEYS
from fer_exp.errors import UserError, one_line
from fer_exp.files import printable
from fer_exp.plots.terminal import protect_streams
from fer_exp.runs.folder import check_output_dir, remove_empty_run_dir

log = logging.getLogger(__name__)

INTERRUPTED = 130  # exit status after Ctrl-C: 128 + SIGINT
_TRACEBACK = "HYDRA_FULL_ERROR"  # 1: print tracebacks, as in Hydra
_SYNONYMS = {"epochs": "trainer.max_epochs", "learning_rate": "optimizer.lr", "device": "trainer.accelerator"}
_PATH_ARGUMENT = re.compile(rf"(\+{{0,2}}(?:{'|'.join(map(re.escape, PATH_KEYS))})=)(.+)", re.DOTALL)
_ITEM = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^,]+""")
_SWEEP_FUNCTION = re.compile(r"(choice|glob|range|shuffle|sort|tag)\(.*\)")


def call(command: Callable[[], Any], config_name: str = "") -> None:
    """Run the main function of a command. Print errors on one line, without a traceback, and set the exit status.

    Args:
        command: takes no arguments; it reads ``sys.argv``, as functions decorated with ``hydra.main`` do.
        config_name: of the YAML file in ``conf/``; empty if Hydra does not parse the arguments.
    """
    protect_streams()
    os.environ["MPLBACKEND"] = "agg"  # importing matplotlib fails if the backend of a notebook is set
    status = 0
    try:
        _check_working_dir()
        if config_name:
            sys.argv[1:] = quote_paths(sys.argv[1:])
        with env_override({_TRACEBACK: "1"}):  # Hydra then raises its errors instead of printing them
            command()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        status = INTERRUPTED
    except Exception as error:
        if os.environ.get(_TRACEBACK, "0").lower() not in ("", "0", "false"):
            raise
        print(f"Error: {_explain(error, sys.argv[1:], config_name)}", file=sys.stderr)
        status = 1
    if status:
        sys.exit(status)


def carry_out(work: Callable[[DictConfig], object], cfg: DictConfig) -> None:
    """Run a command that writes to its own folder. If it fails or is interrupted, log one line and remove the folder.

    Args:
        work: takes the composed config.
        cfg: the composed config.
    """
    try:
        check_output_dir(cfg)
        work(cfg)
    except UserError as error:
        log.error("Error: %s", error)
        status = 1
    except KeyboardInterrupt:
        log.info("Interrupted.")
        status = INTERRUPTED
    else:
        return
    remove_empty_run_dir(Path(HydraConfig.get().runtime.output_dir))
    sys.exit(status)


def quote_paths(arguments: Sequence[str]) -> list[str]:
    """Quote the values of path keys, so that Hydra reads them as typed: ``1.10``, ``a b``, ``2025_11_26``, ``~/x``.

    Interpolations, ``null`` and quoted values keep their meaning. Items of a list, and of a sweep (``-m``), are quoted
    one by one, unless the whole value is the name of an existing file.

    Args:
        arguments: of the command line.
    """
    sweeps = not {"-m", "--multirun"}.isdisjoint(arguments)
    return [_quote_argument(argument, sweeps) for argument in arguments]


def _quote_argument(argument: str, sweeps: bool) -> str:
    found = _PATH_ARGUMENT.fullmatch(argument)
    if not found or "${" in argument:
        return argument
    key, value = found.groups()
    if os.path.lexists(os.path.expanduser(value)):  # noqa: PTH111 (Path rejects unknown users)
        return f"{key}{_quote(value)}"
    if re.fullmatch(r"\{[^{}]*:.*\}", value):  # a mapping, as of data.file
        return argument
    if value.startswith("[") and value.endswith("]"):
        return f"{key}[{','.join(_quote_item(item.strip()) for item in _ITEM.findall(value[1:-1]))}]"
    if not sweeps or key.startswith("hydra."):  # the folder of a sweep is not swept
        return f"{key}{_quote_item(value)}"
    if _SWEEP_FUNCTION.fullmatch(value):
        return argument
    return f"{key}{','.join(map(_quote_item, _ITEM.findall(value)))}"


def _quote_item(text: str) -> str:
    if text in ("null", "???"):
        return text
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = re.sub(rf"\\({text[0]})", r"\1", text[1:-1])
    return _quote(text)


def _quote(text: str) -> str:
    return QuotedString(os.path.expanduser(text), Quote.single).with_quotes()  # noqa: PTH111


def _check_working_dir() -> None:
    try:
        folder = os.getcwd()  # noqa: PTH109
    except OSError as error:
        raise UserError(f"the working directory cannot be used ({error.strerror}); change to another one") from error
    if not folder.isprintable() and printable(folder) != folder:
        raise UserError(f"the working directory {printable(folder)} has a name that is not UTF-8 text; rename it")


def _explain(error: Exception, arguments: Sequence[str], config_name: str) -> str:
    """Return the message for an error that was raised outside a run: what is wrong, where, and what to type."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: {error.problem}; correct the file"
    if isinstance(error, yaml.YAMLError):
        return f"a config file cannot be read: {one_line(error)}"
    if isinstance(error, UnicodeDecodeError):
        files = ", ".join(map(str, _undecodable_files(arguments))) or "a config file"
        return f"{files}: not UTF-8 text ({error.reason} at byte {error.start}); save the file as UTF-8"
    if problem := _wrong_override(arguments):
        return problem
    if isinstance(error, HydraException):
        return _explain_key(str(error), arguments, config_name) or _hydra_message(error)
    causes = [each for each in (error, error.__cause__, error.__context__) if isinstance(each, OSError)]
    if cause := next((each for each in causes if each.filename), None):
        is_yaml = str(cause.filename).endswith((".yaml", ".yml"))
        remedy = "" if is_yaml or cause.errno == errno.ENAMETOOLONG else "; choose another hydra.run.dir"
        return f"{printable(cause.filename)}: {cause.strerror}{remedy}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):  # without the file's name
        return f"a file cannot be written ({error.strerror}); free some space, or choose another folder"
    if "BrokenProcessPool" in (cls.__name__ for cls in type(error).__mro__):  # importing it takes long
        codes = ", ".join(re.findall(r"SIG\w+\(-\d+\)|EXIT\(\d+\)", str(error)))
        return f"a worker process was killed{f' ({codes})' if codes else ''}; the jobs that it ran have no result"
    if isinstance(error, ValueError):  # of Hydra's options
        return one_line(error)
    return f"{type(error).__name__} {one_line(error)}".strip() + "; HYDRA_FULL_ERROR=1 prints the traceback"


def _wrong_override(arguments: Sequence[str]) -> str | None:
    """The first argument that sets a renamed key, or a group to something other than the name of a choice."""
    for argument in arguments:
        key = argument.lstrip("+~").partition("=")[0]
        if key in RENAMED_KEYS:
            return f"{argument}: the key was renamed; use {RENAMED_KEYS[key]}"
        if key in (*GROUPS, "experiment") and "=" in argument:
            with suppress(HydraException):
                override = OverridesParser.create().parse_override(argument)
                if not override.is_sweep_override() and not isinstance(override.value(), str):
                    none = f" ({key}=none for none)" if key in OPTIONAL_GROUPS else ""
                    return f"{argument}: expected the name of a choice: {', '.join(_choices(key))}{none}"
    return None


def _explain_key(message: str, arguments: Sequence[str], config_name: str) -> str | None:
    """The message for an unknown key. It may be a key of another choice, as ``data.root`` of ``data=folders``."""
    found = re.match(r"Could not override '([^']+)'", message)
    if not found:
        return None
    argument = next((each for each in arguments if each.partition("=")[0] == found[1]), found[1])
    known = _known_keys(config_name)
    if known.get(found[1]):
        return f"{argument}: this key needs {' or '.join(known[found[1]])}"
    names: dict[str, list[str]] = {}
    for key in known:
        for name in {key, key.rpartition(".")[2]}:
            names.setdefault(name, []).append(key)
    names |= {
        group: [f"{group}=NAME"] for group in {key.partition(".")[0] for key, choices in known.items() if choices}
    }
    names |= {word: [key] for word, key in _SYNONYMS.items() if key in known}
    similar = get_close_matches(found[1], sorted(names), n=1, cutoff=0.75)
    hint = f"did you mean {' or '.join(names[similar[0]])}?" if similar else "--cfg job prints the keys"
    return f"{argument}: there is no such key; {hint}"


def _known_keys(config_name: str) -> dict[str, list[str]]:
    """The keys of a command, each with the choices that have it: ``{"seed": [], "data.root": ["data=folders"]}``."""
    node = yaml.safe_load((CONFIG_DIR / f"{config_name}.yaml").read_text(encoding="utf-8"))
    known: dict[str, list[str]] = {}
    for key, value in node.items():
        known |= {f"{key}.{name}": [] for name in value} if isinstance(value, dict) else {key: []}
    for group in GROUPS:
        if any(isinstance(entry, dict) and group in entry for entry in node["defaults"]):
            for choice, keys in _choices(group).items():
                for name in keys:
                    known.setdefault(f"{group}.{name}", []).append(f"{group}={choice}")
    return known


def _choices(group: str) -> dict[str, Mapping[str, Any]]:
    """The content of each file of a group in ``conf/``, by name."""
    choices = {}
    for path in sorted((CONFIG_DIR / group).glob("*.yaml")):
        node = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        choices[path.stem] = node.get(group, node)  # files of the package _global_ name their group
    return choices


def _undecodable_files(arguments: Sequence[str]) -> Iterator[Path]:
    """The YAML files in ``--config-dir`` that are not UTF-8 text."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd", type=Path)
    folder = parser.parse_known_args(arguments)[0].config_dir
    for path in sorted(folder.rglob("*.yaml")) if folder else ():
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            yield path


def _hydra_message(error: BaseException) -> str:
    """Hydra's message without its search path and the names of its grammar."""
    text = re.sub(r" expecting (\{.*\}|<EOF>)", "", str(error).partition("Config search path:")[0]).strip()
    text = re.sub(r"^Error |^Lexer\w+: |\nSee https://hydra\.cc/\S+ for details$", "", text)
    if "/override_grammar/" in str(error):
        text = ": ".join(text.splitlines())
        return f"{text}; expected KEY=VALUE; quote values with special characters twice: \"KEY='a (1)'\""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    if cause is None or one_line(cause) in one_line(error):
        return text
    return f"{text or 'a value of the config cannot be read:'} {one_line(cause)}"
