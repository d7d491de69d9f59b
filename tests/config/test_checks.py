import copy
import math
from itertools import product
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_exp.config.checks import check_config, config_warnings
from fer_exp.config.instantiate import build, build_loss, build_optimizer_factories
from fer_exp.config.schema import CONFIG_DIR, plain
from fer_exp.errors import UserError
from fer_exp.runs.record import NEUTRAL_KEYS, config_diff, read_summary
from fer_exp.sweeps.study import parse_arm, trial_points

RESULTS = Path(__file__).parents[2] / "docs/results"
CONFIGS = sorted(
    (path.parent.name, path.stem)
    for path in CONFIG_DIR.glob("*/*.yaml")
    if path.parent.name not in ("hydra", "experiment", "study")
)
EXPERIMENTS = sorted(path.stem for path in CONFIG_DIR.glob("experiment/*.yaml"))
STUDIES = sorted(path.stem for path in CONFIG_DIR.glob("study/*.yaml"))
CHOICES = sorted(path for path in CONFIG_DIR.rglob("*.yaml") if path.parent.parent.name != "hydra")


@pytest.mark.parametrize(("group", "name"), CONFIGS)
def test_every_choice_composes_and_builds(composed, group, name):
    cfg = composed(f"{group}={name}", *(["data.root=."] if (group, name) == ("data", "folders") else []))
    check_config(cfg)
    build_optimizer_factories(cfg)
    build_loss(cfg, [1] * 7)
    if group in ("augmentation", "ema", "data", "logger", "mixup", "model"):
        build(cfg, group)
    for callback in cfg.callbacks:
        build(cfg.callbacks, callback)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes(composed, name):
    check_config(composed(f"experiment={name}", "data.root=."))


@pytest.mark.parametrize("name", ["quick", "thorough"])
def test_a_published_training_is_the_one_that_its_word_stands_for(composed, name):
    published = read_summary(RESULTS / f"fer2013_{name}")["config"]
    ignore = {*NEUTRAL_KEYS, "callbacks", "data", "weight_decay_exclude_1d"}
    assert config_diff(published, plain(composed(f"experiment={name}", "data.root=DIR")), ignore) == []


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_composes(composed, name):
    check_config(composed(f"+study={name}"))


def test_the_study_of_schedules_lays_each_under_each_optimizer_with_the_same_rates_to_try(composed):
    arms = yaml.safe_load((CONFIG_DIR / "study/schedules.yaml").read_text())["hydra"]["sweeper"]["arms"]
    pairs = [(arm["optimizer"], arm["scheduler"]) for arm in arms.values()]
    assert sorted(pairs) == sorted(product({optimizer for optimizer, _ in pairs}, {schedule for _, schedule in pairs}))
    assert len({(arm["optimizer"], arm["optimizer.lr"]) for arm in arms.values()}) == 3
    for name, arm in arms.items():
        (point,) = trial_points(parse_arm(name, arm), 1, 0)
        check_config(composed("+study=schedules", *point))


@pytest.mark.parametrize("path", CHOICES, ids=lambda p: str(p.relative_to(CONFIG_DIR)))
def test_every_file_opens_with_a_command_that_composes(path):
    lines = path.read_text().splitlines()
    command = next(line for line in lines if not line.startswith("# @package")).removeprefix("# ")
    program = path.stem if path.stem in ("audit", "evaluate", "predict") else "train"
    assert command.startswith(f"python -m fer_exp.{program}")
    words = [word for word in command.split(",")[0].split("  ")[0].split()[3:] if word != "-m"]
    OverridesParser.create().parse_overrides(words)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        compose(program, [word.replace("=DIR", "=.") for word in words])


def test_notebook_is_the_default(composed):
    cfg = composed()
    assert (cfg.callbacks.early_stopping.patience, cfg.callbacks.early_stopping.min_delta) == (3, 0)
    assert (cfg.scheduler.factor, cfg.scheduler.threshold, cfg.scheduler.threshold_mode) == (0.2, 1e-4, "abs")
    assert composed("data=folders").data.batch_size == 128
    assert composed("data=folders").trainer.max_epochs == 50
    assert composed("experiment=notebook_patient").callbacks.early_stopping.patience == 10


# Keras's defaults (keras.io/api/optimizers), and what torch calls them.
KERAS = {
    "adam": {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-7, "weight_decay": 0, "amsgrad": False},
    "sgd": {"lr": 1e-2, "momentum": 0, "nesterov": False, "weight_decay": 0},
    "rmsprop": {"lr": 1e-3, "alpha": 0.9, "momentum": 0, "eps": 1e-7, "centered": False, "weight_decay": 0},
}


@pytest.mark.parametrize("name", KERAS)
def test_optimizers_have_the_defaults_of_keras(composed, name):
    make_optimizer, _ = build_optimizer_factories(composed(f"optimizer={name}"))
    group = make_optimizer([torch.nn.Parameter(torch.zeros(2))]).param_groups[0]
    assert {key: list(v) if isinstance(v := group[key], tuple) else v for key in KERAS[name]} == KERAS[name]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=-1", "seed=-1: expected a whole number from 0 up"),
        ("seed=abc", "seed=abc"),
        ("seed=5000000000", "seed=5000000000: expected"),
        ("+patience=10", "patience: there is no such key; there are seed, monitor"),
        ("~callbacks", "callbacks: nothing is chosen"),
        ("~callbacks", "give e.g. callbacks=fixed_budget"),
        ("~optimizer", "optimizer: nothing is chosen; give e.g. optimizer=adam"),
        ("model.num_classes=8", "model.num_classes=8: expected 7"),
        ("trainer.gradient_clip_val=abc", "trainer.gradient_clip_val=abc: expected a number"),
        ("trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=-1: expected null, or a number from 0 up"),
        ("+trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches=0: expected a whole number from 1 up"),
        ("+trainer.max_steps=5", "trainer.max_steps: this is set by the command"),
        ("+trainer.min_epochs=5", "trainer.min_epochs: this is set by the command"),
        ("scheduler.mode=max", "scheduler.mode=max: the schedule watches monitor=val_loss; expected min"),
        ("data.batch_size=0", "data.batch_size=0: expected a whole number from 1 up"),
        ("data.batch_size=12.5", "data.batch_size=12.5"),
        ("data=folders", "data.root must be set"),
        ("trainer.max_epochs=0", "trainer.max_epochs=0"),
        ("trainer.max_epochs=ten", "trainer.max_epochs=ten"),
        ("trainer.accelerator=tpu3", "trainer.accelerator=tpu3: expected one of auto, cpu"),
        ("trainer.precision=8", "trainer.precision=8: expected one of auto, 32-true"),
        ("trainer.limit_train_batches=0", "trainer.limit_train_batches=0: expected a share"),
        ("+trainer.devices=2", "trainer.devices: this is set by the command"),
        ("+trainer.max_epoch=3", "trainer.max_epoch: Trainer takes no such key; it takes accelerator"),
        ("+optimizer.rho=0.9", "optimizer.rho: Adam takes no such key; it takes params, lr, betas"),
        ("optimizer.lr=fast", "optimizer.lr=fast: expected a number"),
        ("model.dropout=much", "model.dropout=much: expected a number"),
        ("model.num_classes=7.5", "model.num_classes=7.5: expected 7"),
        ("model.fast_dropout=3", "model.fast_dropout=3: expected true or false"),
        ("+model.width=2", "model.width: NotebookCNN takes no such key; it takes num_classes"),
        ("model._target_=fer_exp.models.Missing", "model._target_=fer_exp.models.Missing: cannot be imported"),
        ("callbacks.early_stopping.patience=long", "callbacks.early_stopping.patience=long: expected a whole number"),
        ("resume=nowhere.ckpt", "resume=nowhere.ckpt: there is no such checkpoint"),
        ("data.on_unreadable=ignore", "data.on_unreadable=ignore: expected error or skip"),
        ("data.val_fraction=1", "data.val_fraction=1: expected a share in [0, 1)"),
        ("data.val_fraction=-0.1", "data.val_fraction=-0.1: expected a share"),
        ("data.val_fraction=some", "data.val_fraction=some: expected"),
        ("channels_last=yes_please", "channels_last=yes_please: expected true or false"),
        ("cuda_graph=2", "cuda_graph=2: expected true or false"),
        ("cuda_graph=1", "cuda_graph=1: expected true or false"),
        ("im2col_weight_grad=yes", "im2col_weight_grad=yes: expected auto, true or false"),
        ("retain_memory=auto", "retain_memory=auto: expected true or false"),
        ("optimizer.lr=-1", "optimizer.lr=-1: expected a finite number from 0 up"),
        ("optimizer.lr=inf", "optimizer.lr=inf: expected a finite number from 0 up"),
        ("optimizer.lr=null", "optimizer.lr=None: expected a number"),
        ("optimizer.lr=true", "optimizer.lr=True: expected a number"),
        ("optimizer.lr=[1]", "optimizer.lr=[1]: expected a number"),
        ("optimizer.lr=${nope}", "cannot be resolved: Interpolation key 'nope' not found full_key: optimizer.lr"),
        ("optimizer.betas=[0.9]", "optimizer.betas=[0.9]: expected a list of 2, each a number"),
        ("optimizer.betas=[0.9,nan]", "optimizer.betas=[0.9, nan]: expected a list of 2, each a number"),
        ("optimizer.eps=nan", "optimizer.eps=nan: expected a finite number"),
        ("optimizer.eps=null", "optimizer.eps=None: expected a number"),
        ("scheduler.factor=-0.5", "scheduler.factor=-0.5: expected a finite number from 0 up"),
        ("scheduler.min_lr=nan", "scheduler.min_lr=nan: expected a finite number from 0 up"),
        ("scheduler.mode=sideways", "scheduler.mode=sideways: expected min or max"),
        ("trainer.deterministic=maybe", "trainer.deterministic=maybe: expected true or false or warn"),
        ("model.fast_dropout=null", "model.fast_dropout=None: expected true or false"),
        ("data.seed=-1", "data.seed=-1: expected a whole number from 0 up"),
        ("resume=3", "resume=3: there is no such checkpoint"),
        ("output_dir=null", "output_dir=None: expected a folder"),
        ("+scheduler.total_steps=5", "scheduler.total_steps: the length of a run is set by trainer.max_epochs"),
        ("+scheduler.epochs=5", "scheduler.epochs: the length of a run is set by trainer.max_epochs"),
        ("+scheduler.max_lr=-1", "scheduler.max_lr=-1: expected a finite number from 0 up"),
        ("weight_decay_exclude_1d=1", "weight_decay_exclude_1d=1: expected true or false"),
        ("+ema._target_=lightning.pytorch.callbacks.EMAWeightAveraging", "ema.WeightEMA"),
        ("callbacks.checkpoints=5", "callbacks.checkpoints=5: expected keys and values"),
        ("~trainer.max_epochs", "trainer.max_epochs: is not there"),
        ("~data.batch_size", "data.batch_size: is not there"),
        ("~channels_last", "channels_last: is not there"),
        ("~model._target_", "model: has no _target_, the class to make"),
        ("optimizer._target_=5", "optimizer._target_=5: cannot be imported"),
        ("optimizer._target_=os.system", "os.system: expected a class that is a kind of torch.optim"),
        ("model._target_=builtins.eval", "builtins.eval: expected a class that is a kind of torch.nn"),
        ("callbacks.checkpoints._target_=shutil.rmtree", "shutil.rmtree: expected a class that is a kind of lightning"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(composed, override, said):
    with pytest.raises(UserError) as error:
        check_config(composed(override))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer.lr=-1", "Invalid learning rate: -1"),
        ("optimizer.lr=nan", "Invalid learning rate: nan"),
        ("scheduler.factor=2", "Factor should be < 1.0"),
        ("optimizer._partial_=false", "optimizer"),
    ],
)
def test_a_value_that_the_class_refuses_is_named(composed, override, said):
    with pytest.raises(UserError, match=said.replace(".", r"\.")):
        build_optimizer_factories(composed(override))


def test_an_optimizer_that_takes_no_groups_is_tried_with_them_where_they_will_come(composed):
    cfg = composed("weight_decay_exclude_1d=true")
    cfg.optimizer = {"_target_": "torch.optim.LBFGS", "_partial_": True}
    with pytest.raises(UserError, match="optimizer: LBFGS doesn't support per-parameter options"):
        build_optimizer_factories(cfg)


def test_what_is_no_class_of_its_group_is_not_called(composed, tmp_path):
    # Hydra refuses some functions; none is called here, whatever Hydra thinks of it.
    touched = tmp_path / "touched"
    with pytest.raises(UserError, match="expected a class"):
        check_config(composed("optimizer._target_=pathlib.Path.touch", f"+optimizer.self={touched}"))
    assert not touched.exists()


RATES = ("optimizer.lr", "scheduler.factor", "scheduler.min_lr")
SAMPLED = (
    *RATES, "seed", "monitor", "channels_last", "resume", "output_dir", "nope", "optimizer", "optimizer.betas",
    "optimizer.eps", "optimizer.amsgrad", "optimizer._target_", "optimizer._partial_", "optimizer.nope", "scheduler",
    "scheduler.patience", "scheduler.mode", "scheduler.cooldown", "data", "data.batch_size", "data.val_fraction",
    "data.seed", "data.on_unreadable", "model.dropout", "model.num_classes", "model.fast_dropout", "trainer",
    "trainer.max_epochs", "trainer.accelerator", "trainer.limit_train_batches", "trainer.gradient_clip_val",
    "callbacks", "callbacks.checkpoints", "callbacks.early_stopping.patience", "callbacks.early_stopping.monitor",
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("val_loss")
VALUES = SCALARS | st.lists(SCALARS, max_size=3)


@pytest.fixture(scope="module")
def default():
    """The configuration of a run without any choice."""
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("train", ["output_dir=here"])


@pytest.mark.parametrize(("keys", "examples"), [(SAMPLED, 150), (RATES, 50)], ids=["any key", "rates"])
def test_any_value_of_any_key_passes_or_is_refused_with_words(default, keys, examples):
    @settings(derandomize=True, deadline=None, max_examples=examples)
    @given(key=st.sampled_from(keys), value=VALUES)
    def holds(key, value):
        cfg = copy.deepcopy(default)
        OmegaConf.set_struct(cfg, False)
        try:
            OmegaConf.update(cfg, key, value, merge=False)
        except OmegaConfBaseException:  # a half of an interpolation: Hydra composes no such configuration
            assume(False)
        try:
            check_config(cfg)
            build_optimizer_factories(cfg)
        except UserError:
            return
        list(config_warnings(cfg))
        for given_rate in filter(None, (OmegaConf.select(cfg, path) for path in RATES)):
            for rate in given_rate if OmegaConf.is_list(given_rate) else [given_rate]:
                assert math.isfinite(rate)
                assert rate >= 0

    holds()


def test_settings_that_work_against_each_other_are_told(composed):
    def told(*overrides):
        return " ".join(config_warnings(composed("callbacks=fixed_budget", "scheduler=none", *overrides)))

    assert told() == ""
    assert told("scheduler=one_cycle") == ""
    assert "callbacks=fixed_budget trains to its end" in told("scheduler=one_cycle", "callbacks=notebook")
    assert "callbacks=fixed_budget trains to its end" in told("scheduler=cosine", "callbacks=notebook")
    assert "weight_decay_exclude_1d=true" in told("weight_decay_exclude_1d=true")
    assert told("weight_decay_exclude_1d=true", "optimizer=adamw") == ""
    assert told("weight_decay_exclude_1d=true", "~optimizer.weight_decay") == ""  # the class has a value of its own
    assert told("loss.class_weights=balanced") == ""
    assert "data.balanced_sampling and loss.class_weights each make up for rare classes" in told(
        "loss.class_weights=balanced", "data.balanced_sampling=true"
    )


def test_a_dropout_that_is_no_share_is_refused(composed):
    build(composed("model.dropout=0.3"), "model")
    with pytest.raises(UserError, match=r"dropout=1"):
        build(composed("model.dropout=1.0"), "model")


def test_patience_below_one_is_refused(composed):
    with pytest.raises(UserError, match="patience=0"):
        build(composed("callbacks.early_stopping.patience=0").callbacks, "early_stopping")


def test_all_problems_are_said_at_once(composed):
    # Each is named once.
    with pytest.raises(UserError, match=r"(?s)^3 settings are wrong.*seed.*max_epochs.*lr"):
        check_config(composed("seed=-1", "trainer.max_epochs=0", "optimizer.lr=x"))


def test_the_lottery_of_equal_patience_is_warned_about(composed):
    (warning,) = config_warnings(composed())
    assert "no cut ever acts" in warning
    for override in ("callbacks.early_stopping.patience=4", "scheduler=none", "callbacks=fixed_budget"):
        assert list(config_warnings(composed(override))) == []


def test_a_schedule_that_cannot_act_is_warned_about(composed):
    (warning,) = config_warnings(composed("callbacks=fixed_budget", "trainer.max_epochs=3"))
    assert "ends the run before the plateau schedule can cut the rate" in warning


def test_a_plateau_schedule_without_a_mode_has_torch_s(composed):
    cfg = composed("~scheduler.mode")
    check_config(cfg)
    cfg.monitor = "val_acc"
    with pytest.raises(UserError, match=r"scheduler\.mode=min: the schedule watches monitor=val_acc; expected max"):
        check_config(cfg)
