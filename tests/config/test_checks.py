"""Validation: every problem is reported, with its key, before anything is called."""

import math
import subprocess
import sys

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer_exp.config.checks import check_config, check_values, config_warnings
from fer_exp.config.instantiate import build_optimizer_factories
from fer_exp.config.schema import RENAMED_KEYS, EvaluateConfig
from fer_exp.errors import UserError


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("seed", -1, "[0, 4294967295]"),
        ("seed", "abc", "an integer"),
        ("seed", 5_000_000_000, "[0, 4294967295]"),
        ("seed", True, "an integer"),
        ("patience", 10, "seed, monitor"),
        ("monitor", "", "val_loss"),
        ("monitor", ["val_loss"], "text"),
        ("channels_last", "perhaps", "true or false"),
        ("cuda_graph", "auto", "true or false"),
        ("im2col_weight_grad", "yes", "auto, true or false"),
        ("im2col_weight_grad", 1, "auto, true or false"),
        ("plots.theme", "pink", "light or dark"),
        ("plots", 5, "keys and values"),
        ("output_dir", None, "text"),
        ("resume", "nowhere.ckpt", "nowhere.ckpt"),
        ("data.root", "nowhere", "nowhere"),
        ("data.soft_labels", "nowhere.csv", "nowhere.csv"),
        ("data.batch_size", 0, ">= 1"),
        ("data.batch_size", 12.5, "an integer"),
        ("data.seed", -1, "[0, 4294967295]"),
        ("data.val_fraction", 1.0, "[0, 1)"),
        ("data.val_fraction", -0.1, "[0, 1)"),
        ("data.on_unreadable", "ignore", "error or skip"),
        ("data.hold_out", 0.1, "data.val_fraction"),
        ("trainer.max_epochs", 0, ">= 1"),
        ("trainer.max_epochs", "ten", "an integer"),
        ("trainer.accelerator", "tpu3", "cpu"),
        ("trainer.precision", "8", "32-true"),
        ("trainer.limit_train_batches", 0, "(0, 1]"),
        ("trainer.limit_val_batches", 1.5, "(0, 1]"),
        ("trainer.gradient_clip_val", -1, "null or a number >= 0"),
        ("trainer.gradient_clip_val", "abc", "null or a number"),
        ("trainer.accumulate_grad_batches", 0, ">= 1"),
        ("trainer.deterministic", "maybe", "true or false or warn"),
        ("trainer.devices", 2, "one device"),
        ("trainer.max_epoch", 3, "accelerator"),
        ("optimizer.lr", "fast", "a number"),
        ("optimizer.lr", -1, "a number >= 0"),
        ("optimizer.lr", math.inf, "a number >= 0"),
        ("optimizer.lr", None, "a number >= 0"),
        ("optimizer.lr", [1], "a number >= 0"),
        ("optimizer.rho", 0.9, "params, lr, betas"),
        ("optimizer.betas", [0.9], "a list of 2, each a number"),
        ("optimizer.betas", [0.9, math.nan], "a list of 2, each a number"),
        ("optimizer.eps", math.nan, "a finite number"),
        ("optimizer.eps", None, "a number"),
        ("optimizer._partial_", False, "_partial_: true"),
        ("scheduler.factor", -0.5, "a number >= 0"),
        ("scheduler.min_lr", [0.1, math.nan], "a number >= 0"),
        ("scheduler.mode", "sideways", "min or max"),
        ("scheduler.mode", "max", "min"),
        ("scheduler.total_steps", 5, "trainer.max_epochs"),
        ("callbacks.early_stopping.mode", "max", "min"),
        ("callbacks.early_stopping.patience", "long", "an integer"),
        ("callbacks.checkpoints", 5, "keys and values"),
        ("model.dropout", "much", "a number"),
        ("model.fast_dropout", None, "true or false"),
        ("model.width", 2, "num_classes"),
        ("model", "vgg", "keys and values"),
    ],
)
def test_a_wrong_value_is_reported_with_its_key_and_what_is_expected(config, key, value, expected):
    with pytest.raises(UserError) as error:
        check_config(config(values={key: value}))
    message = str(error.value)
    assert message.startswith(key.removesuffix("._partial_"))
    assert expected in message
    assert "\n" not in message  # one problem


@pytest.mark.parametrize("key", ["trainer.max_epochs", "data.batch_size", "channels_last", "model._target_"])
def test_a_missing_key_is_reported(config, key):
    cfg = config()
    parent, _, name = key.rpartition(".")
    del (OmegaConf.select(cfg, parent) if parent else cfg)[name]
    with pytest.raises(UserError, match=key.partition(".")[0]):
        check_config(cfg)


@pytest.mark.parametrize("group", ["optimizer", "callbacks"])
def test_a_required_group_without_a_choice_is_reported_with_an_example(config, group):
    with pytest.raises(UserError, match=f"{group}: .*{group}="):
        check_config(config(values={group: None}))


def test_all_problems_are_reported_at_once_and_each_key_once(config):
    wrong = {"seed": -1, "trainer.max_epochs": 0, "optimizer.lr": "x", "model.dropout": "much"}
    with pytest.raises(UserError) as error:
        check_config(config(values=wrong))
    assert [sum(line.strip(" -").startswith(key) for line in str(error.value).splitlines()) for key in wrong] == [1] * 4


@pytest.mark.parametrize(("old", "new"), [(o, n) for o, n in RENAMED_KEYS.items() if not o.startswith("hydra.")])
def test_a_renamed_key_is_refused_with_the_new_name(config, old, new):
    if old in ("mixup.mixup", "mixup.cutmix", "mixup.share"):
        cfg = config("mixup=mixup", values={old: 1})
    else:
        cfg = config(values={old: 1})
    with pytest.raises(UserError) as error:
        check_config(cfg)
    assert f"{old}: " in str(error.value)
    assert new in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "typed"),
    [("seed", "3", 3), ("channels_last", "no", False), ("resume", None, None), ("data.batch_size", "16", 16)],
)
def test_values_are_converted_to_the_type_of_their_key(config, key, value, typed):
    cfg = config(values={key: value})
    check_config(cfg)
    assert OmegaConf.select(cfg, key) == typed
    assert type(OmegaConf.select(cfg, key)) is type(typed)


def test_the_values_of_another_command_are_checked_by_its_class(config):
    cfg = config(command="evaluate", values={"resamples": 5, "batch_size": 0, "weights": "restored", "views": "flip"})
    with pytest.raises(UserError) as error:
        check_values(cfg, EvaluateConfig)
    for part in ("resamples=5", "batch_size=0", "weights=restored", "best or last", "views: ", "tta"):
        assert part in str(error.value)
    check_values(config(command="evaluate"), EvaluateConfig)


def test_wrong_paths_are_reported_before_torch_is_imported(tmp_path):
    code = (
        "import sys; from hydra import compose, initialize_config_dir; from fer_exp.config.checks import check_config;"
        "from fer_exp.config.schema import CONFIG_DIR; from fer_exp.errors import UserError\n"
        "with initialize_config_dir(str(CONFIG_DIR), version_base='1.3'):\n"
        "    cfg = compose('train', ['data=folders', 'data.root=nowhere', 'resume=none.ckpt', 'output_dir=x'])\n"
        "try: check_config(cfg)\n"
        "except UserError as error: print(error, 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "data.root=nowhere" in result.stdout, result.stderr
    assert "resume=none.ckpt" in result.stdout
    assert result.stdout.split()[-1] == "False"


SAMPLED = (
    "optimizer.lr", "scheduler.factor", "scheduler.min_lr", "seed", "monitor", "resume", "nope", "optimizer",
    "optimizer.betas", "optimizer._target_", "optimizer._partial_", "scheduler", "scheduler.patience",
    "data.batch_size", "data.val_fraction", "model.fast_dropout", "trainer.limit_train_batches",
    "callbacks.early_stopping.patience",
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("val_loss")


def test_any_value_of_any_key_is_accepted_or_reported(config):
    @settings(derandomize=True, deadline=None, max_examples=25)
    @given(key=st.sampled_from(SAMPLED), value=SCALARS | st.lists(SCALARS, max_size=3))
    def holds(key, value):
        try:
            cfg = config(values={key: value})
        except OmegaConfBaseException:  # part of an interpolation: Hydra does not compose such a config
            assume(False)
        try:
            check_config(cfg)
            build_optimizer_factories(cfg)
        except UserError:
            return
        list(config_warnings(cfg))
        assert 0 <= cfg.optimizer.get("lr", 0) < math.inf

    holds()


@pytest.mark.parametrize(
    ("overrides", "values", "word"),
    [
        ((), {"trainer.max_epochs": 50}, "plateau"),
        ((), {"trainer.max_epochs": 50, "callbacks.early_stopping.patience": 4}, None),
        (("scheduler=none",), {}, None),
        (("scheduler=cosine",), {}, "fixed_budget"),
        (("scheduler=cosine", "callbacks=fixed_budget"), {}, None),
        (("callbacks=fixed_budget",), {}, None),
        (("callbacks=fixed_budget",), {"trainer.max_epochs": 3}, "trainer.max_epochs=3"),
        (("scheduler=none",), {"weight_decay_exclude_1d": True}, "weight_decay_exclude_1d"),
        (("scheduler=none",), {"weight_decay_exclude_1d": True, "optimizer.weight_decay": 0.1}, None),
        (("scheduler=none",), {"loss.class_weights": "balanced"}, None),
        (("scheduler=none",), {"loss.class_weights": "balanced", "data.balanced_sampling": True}, "balanced_sampling"),
    ],
)
def test_settings_that_work_against_each_other_are_warned_about(config, overrides, values, word):
    warnings = list(config_warnings(config(*overrides, values=values)))
    assert len(warnings) == (word is not None)
    assert all(word in warning for warning in warnings)


def test_a_plateau_schedule_without_a_mode_has_torchs_default(config):
    cfg = config(values={"monitor": "val_acc"})
    del cfg.scheduler["mode"]
    with pytest.raises(UserError, match=r"scheduler\.mode=min: val_acc"):
        check_config(cfg)


def test_a_metric_of_the_users_own_code_can_be_monitored(config):
    check_config(config(values={"monitor": "val_top2_error"}))
