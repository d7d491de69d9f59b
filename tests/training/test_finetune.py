"""Fine-tuning: the last layer is trained first and alone, and the other layers have a smaller learning rate."""

import pytest
import timm
import torch

from fer_exp.errors import UserError
from fer_exp.models.vgg import VGG
from fer_exp.runs.record import read_history
from fer_exp.train import train
from fer_exp.training.module import Classifier

RECIPE = (
    "model=timm", "model.name=test_resnet", "head_epochs=1", "backbone_lr_factor=0.1", "scheduler=cosine",
    "callbacks=fixed_budget", "ema=default", "data.color=rgb", "weight_decay_exclude_1d=true",
)  # fmt: skip


@pytest.fixture
def finetune(small, tmp_path, no_plots):
    """Fine-tune from a file of weights: ``finetune("a", "trainer.max_epochs=2")`` returns the state of last.ckpt."""
    torch.manual_seed(0)
    file = tmp_path / "weights.pt"
    torch.save(timm.create_model("test_resnet").state_dict(), file)

    def run(name, *overrides):
        train(small(*RECIPE, f"model.weights={file}", f"output_dir={tmp_path / name}", *overrides))
        return torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)

    run.file = file
    return run


def trained(state):
    """The trained weights of a checkpoint (beside their moving average), without their prefix."""
    found = {key.removeprefix("network.network."): value for key, value in state["current_model_state"].items()}
    return {key: value for key, value in found.items() if not key.startswith(("train_", "val_", "network."))}


def test_the_first_epochs_train_the_last_layer_alone(finetune):
    before = torch.load(finetune.file, weights_only=True)
    after = trained(finetune("head", "trainer.max_epochs=1"))
    assert after["fc.weight"].abs().sum() > 0
    backbone = [key for key in before if not key.startswith("fc.")]
    assert all(torch.equal(after[key], before[key]) for key in backbone)  # batch-norm statistics included
    # torch's fused SGD with momentum fails if some parameters get their first gradient later than others.
    later = trained(finetune("all", "trainer.max_epochs=2", "optimizer=sgd_nesterov"))
    assert not any(torch.equal(later[key], before[key]) for key in backbone if before[key].dim() == 4)


def test_layers_that_the_network_itself_froze_stay_frozen(monkeypatch):
    network = VGG(widths=(4,), convolutions=(1,), dense=())
    conv, norm, drop = (network.get_submodule(f"layers.{name}") for name in ("conv1_1", "norm1_1", "drop1"))
    conv.requires_grad_(False), norm.eval()
    classifier = Classifier(network, torch.optim.SGD, None, "val_loss", 7, head_epochs=1)
    for epoch, is_trained in enumerate((False, True)):
        monkeypatch.setattr(Classifier, "current_epoch", epoch)
        classifier.on_train_epoch_start()
        assert (norm.weight.requires_grad, drop.training, network.training) == (is_trained,) * 3
        assert (conv.weight.requires_grad, norm.training) == (False, False)
        assert (network.layers.logits.weight.requires_grad, network.layers.logits.training) == (True, True)


def test_a_network_without_a_last_layer_is_refused():
    with pytest.raises(UserError, match="no last layer with 7 outputs"):
        Classifier(torch.nn.Linear(4, 3), torch.optim.SGD, None, "val_loss", 7, backbone_lr_factor=0.5)


def test_the_backbone_has_a_fraction_of_the_learning_rate(finetune, tmp_path):
    state = finetune("run", "trainer.max_epochs=2", "scheduler=none", "optimizer.lr=0.01")
    groups = state["optimizer_states"][0]["param_groups"]
    assert [group["lr"] for group in groups] == pytest.approx([0.01, 0.01, 0.001, 0.001])
    assert [group["weight_decay"] for group in groups[1::2]] == [0, 0]
    assert [len(group["params"]) for group in groups[:2]] == [1, 1]  # weight and bias of the last layer
    assert read_history(tmp_path / "run")[0]["lr"] == 0.01


def test_a_resumed_run_ends_like_a_whole_one_and_does_not_need_the_file(finetune, tmp_path, interrupted):
    whole = finetune("whole", "trainer.max_epochs=3")
    with interrupted(3, step=1):
        finetune("part", "trainer.max_epochs=3")
    finetune.file.unlink()
    resumed = finetune("part", "trainer.max_epochs=3", f"resume={tmp_path / 'part/checkpoints/last.ckpt'}")
    a, b = trained(whole), trained(resumed)
    assert all(torch.equal(a[key], b[key]) for key in a)
    rows = [
        [
            {key: value for key, value in row.items() if not key.endswith("seconds")}
            for row in read_history(tmp_path / n)
        ]
        for n in ("whole", "part")
    ]
    assert rows[0] == rows[1]


def test_a_schedule_with_one_learning_rate_for_all_layers_is_refused(finetune):
    with pytest.raises(UserError, match="backbone_lr_factor"):
        finetune("run", "scheduler=one_cycle")
