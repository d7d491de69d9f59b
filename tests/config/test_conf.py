"""Every file of ``conf/`` opens with a command; that command composes, is valid, and builds."""

from itertools import product
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from fer_exp.cli import quote_paths
from fer_exp.config.checks import check_config
from fer_exp.config.instantiate import build, build_loss, build_model, build_optimizer_factories
from fer_exp.config.paths import INPUT_PATHS
from fer_exp.config.schema import CONFIG_DIR, commented_keys, plain
from fer_exp.runs.config_diff import NEUTRAL_KEYS, config_diff
from fer_exp.runs.record import read_summary
from fer_exp.sweeps.study import parse_arm, trial_points

RESULTS = Path(__file__).parents[2] / "docs/results"
FILES = sorted(path for path in CONFIG_DIR.rglob("*.yaml"))
COMMANDS = ("audit", "evaluate", "export", "predict")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIG_DIR)))
def test_the_command_that_a_file_opens_with_composes_and_builds(config, tmp_path, monkeypatch, path):
    if path.is_relative_to(CONFIG_DIR / "hydra") and path.stem != "study":
        return  # Hydra's logging
    command = next(line for line in path.read_text().splitlines() if not line.startswith("# @package"))
    program = path.stem if path.stem in COMMANDS else "train"
    assert command.startswith(f"# python -m fer_exp.{program}")
    words = command.split(",")[0].split("   ")[0].split()[4:]
    monkeypatch.chdir(tmp_path)
    for key, _, name in (word.partition("=") for word in words):
        if key in INPUT_PATHS or key.startswith("data.file"):
            (tmp_path / name).touch()
    overrides = quote_paths([word.strip("'") for word in words if word != "-m"])
    OverridesParser.create().parse_overrides(overrides)
    cfg = config(*overrides, command=program)
    if program != "train":
        return
    check_config(cfg)
    group = path.parent.name
    if group in ("optimizer", "scheduler"):
        build_optimizer_factories(cfg)
    elif group == "loss":
        build_loss(cfg, [1] * 7)
    elif group == "model":
        build_model(cfg.model, 7, (1, 48, 48))
    elif group in ("augmentation", "data", "ema", "logger", "mixup"):
        build(cfg, group)
    elif group == "callbacks":
        for callback in cfg.callbacks:
            build(cfg.callbacks, callback)


@pytest.mark.parametrize("name", ["quick", "thorough"])
def test_an_experiment_is_the_published_run_of_its_name(config, name):
    published = read_summary(RESULTS / f"fer2013_{name}")["config"]
    cfg = plain(config(f"experiment={name}", "data.root=DIR"))
    cfg = {key: value for key, value in cfg.items() if key in published}  # other keys are newer than the run
    assert config_diff(published, cfg, {*NEUTRAL_KEYS, "callbacks", "data"}) == []
    assert {key: cfg["data"][key] for key in published["data"] if key in ("batch_size", "seed", "val_fraction")} == {
        key: published["data"][key] for key in ("batch_size", "seed", "val_fraction")
    }


def test_the_study_of_schedules_tries_each_with_each_optimizer_at_the_same_learning_rates(config):
    arms = yaml.safe_load((CONFIG_DIR / "study/schedules.yaml").read_text())["hydra"]["sweeper"]["arms"]
    pairs = [(arm["optimizer"], arm["scheduler"]) for arm in arms.values()]
    assert sorted(pairs) == sorted(product({optimizer for optimizer, _ in pairs}, {schedule for _, schedule in pairs}))
    assert len({(arm["optimizer"], arm["optimizer.lr"]) for arm in arms.values()}) == 3
    for name, arm in arms.items():
        (point,) = trial_points(parse_arm(name, arm), 1, 0)
        check_config(config("+study=schedules", *point))


def test_the_default_is_the_notebook(config):
    cfg = config()
    assert (cfg.callbacks.early_stopping.patience, cfg.callbacks.early_stopping.min_delta) == (3, 0)
    assert (cfg.scheduler.factor, cfg.scheduler.threshold, cfg.scheduler.threshold_mode) == (0.2, 1e-4, "abs")
    assert config("data=folders").data.batch_size == 128
    assert config("data=folders").trainer.max_epochs == 50
    assert config("experiment=notebook_patient").callbacks.early_stopping.patience == 10


def test_the_keys_of_a_file_are_listed_with_their_comments():
    text = commented_keys("train")
    assert set(yaml.safe_load(text)) >= {"seed", "monitor", "resume", "output_dir"}
    assert "defaults" not in text
    assert text.count("#") >= 8
