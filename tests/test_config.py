import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

from fer_exp.config import (
    CONFIG_DIR,
    build,
    build_optimizer_factories,
    check_config,
    named,
    oddities,
)
from fer_exp.errors import UserError

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
    if group in ("model", "logger", "data"):
        build(cfg, group)
    for callback in cfg.callbacks:
        build(cfg.callbacks, callback)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes(composed, name):
    check_config(composed(f"experiment={name}", "data.root=."))


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_composes(composed, name):
    check_config(composed(f"+study={name}"))


@pytest.mark.parametrize("path", CHOICES, ids=lambda p: str(p.relative_to(CONFIG_DIR)))
def test_every_file_opens_with_a_command_that_composes(composed, path):
    lines = path.read_text().splitlines()
    command = next(line for line in lines if not line.startswith("# @package")).removeprefix("# ")
    program = "audit" if path.stem == "audit" else "train"
    assert command.startswith(f"python -m fer_exp.{program}")
    words = [word for word in command.split(",")[0].split("  ")[0].split()[3:] if word != "-m"]
    OverridesParser.create().parse_overrides(words)
    composed(*(word.replace("=DIR", "=.") for word in words), config=program)


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
        ("~optimizer", "optimizer: nothing is chosen"),
        ("model.num_classes=8", "model.num_classes=8: expected 7"),
        ("trainer.gradient_clip_val=abc", "trainer.gradient_clip_val=abc: expected a number"),
        ("+trainer.max_steps=5", "trainer.max_steps: this is set by the command"),
        ("monitor=val_los", "monitor=val_los: no such figure is logged; logged in each epoch are train_loss"),
        ("callbacks.checkpoints.monitor=acc", "callbacks.checkpoints.monitor=acc: no such figure"),
        ("+callbacks.checkpoints.mode=min", "callbacks.checkpoints.mode=min: val_acc is better the higher"),
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
        ("model.num_classes=7.5", "model.num_classes=7.5: expected a whole number"),
        ("model.fast_dropout=3", "model.fast_dropout=3: expected true or false"),
        ("+model.width=2", "model.width: NotebookCNN takes no such key; it takes num_classes"),
        ("model._target_=fer_exp.models.Missing", "model._target_=fer_exp.models.Missing: cannot be imported"),
        ("callbacks.early_stopping.patience=long", "callbacks.early_stopping.patience=long: expected a number"),
        ("resume=nowhere.ckpt", "resume=nowhere.ckpt: there is no such checkpoint"),
        ("data.on_bad_image=ignore", "data.on_bad_image=ignore: expected error or skip"),
        ("data.hold_out=1", "data.hold_out=1: expected a share in [0, 1)"),
        ("data.hold_out=-0.1", "data.hold_out=-0.1: expected a share"),
        ("data.hold_out=some", "data.hold_out=some: expected"),
        ("channels_last=yes_please", "channels_last=yes_please: expected true or false"),
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


def test_dropout_that_bytes_cannot_give_is_refused(composed):
    with pytest.raises(UserError, match=r"multiples of 1/256.*dropout=0\.3"):
        build(composed("model.dropout=0.3"), "model")


def test_patience_below_one_is_refused(composed):
    with pytest.raises(UserError, match="patience=0: expected a whole number from 1 up"):
        build(composed("callbacks.early_stopping.patience=0").callbacks, "early_stopping")


def test_a_group_is_named_by_its_class(composed):
    assert named(composed("optimizer=sgd").optimizer) == {
        "name": "SGD", "_target_": "torch.optim.SGD", "_partial_": True,
        "lr": 0.01, "momentum": 0.0, "weight_decay": 0.0, "nesterov": False,
    }  # fmt: skip


def test_all_problems_are_said_at_once(composed):
    # Each is named once.
    with pytest.raises(UserError, match=r"(?s)^3 settings are wrong.*seed.*max_epochs.*lr"):
        check_config(composed("seed=-1", "trainer.max_epochs=0", "optimizer.lr=x"))


def test_the_lottery_of_equal_patience_is_warned_about(composed):
    (warning,) = oddities(composed())
    assert "no cut ever acts" in warning
    for override in ("callbacks.early_stopping.patience=4", "scheduler=none", "callbacks=fixed_budget"):
        assert list(oddities(composed(override))) == []


def test_a_schedule_that_cannot_act_is_warned_about(composed):
    (warning,) = oddities(composed("callbacks=fixed_budget", "trainer.max_epochs=3"))
    assert "ends the run before the plateau schedule can cut the rate" in warning
