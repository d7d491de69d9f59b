import math

import pytest
import torch
from torch import nn

from fer_exp.models.notebook_cnn import NotebookCNN
from fer_exp.models.summary import list_layers

# (kind, output shape, parameters) from the notebook's own summary; Keras counts batch norm's statistics too.
NOTEBOOK = [
    ("Conv2d", (64, 48, 48), 640),
    ("BatchNorm2d", (64, 48, 48), 256),
    ("ReLU", (64, 48, 48), 0),
    ("MaxPool2d", (64, 24, 24), 0),
    ("Dropout", (64, 24, 24), 0),
    ("Conv2d", (128, 24, 24), 204_928),
    ("BatchNorm2d", (128, 24, 24), 512),
    ("ReLU", (128, 24, 24), 0),
    ("MaxPool2d", (128, 12, 12), 0),
    ("Dropout", (128, 12, 12), 0),
    ("Conv2d", (512, 12, 12), 590_336),
    ("BatchNorm2d", (512, 12, 12), 2_048),
    ("ReLU", (512, 12, 12), 0),
    ("MaxPool2d", (512, 6, 6), 0),
    ("Dropout", (512, 6, 6), 0),
    ("Conv2d", (512, 6, 6), 2_359_808),
    ("BatchNorm2d", (512, 6, 6), 2_048),
    ("ReLU", (512, 6, 6), 0),
    ("MaxPool2d", (512, 3, 3), 0),
    ("Dropout", (512, 3, 3), 0),
    ("Flatten", (4608,), 0),
    ("Linear", (256,), 1_179_904),
    ("BatchNorm1d", (256,), 1_024),
    ("ReLU", (256,), 0),
    ("Dropout", (256,), 0),
    ("Linear", (512,), 131_584),
    ("BatchNorm1d", (512,), 2_048),
    ("ReLU", (512,), 0),
    ("Dropout", (512,), 0),
    ("Linear", (7,), 3_591),
]


def test_layers_are_those_of_the_notebook():
    network = NotebookCNN(pool_before_relu=False, fast_dropout=False)
    layers = list_layers(network, (1, 48, 48))
    assert [(layer.kind, layer.output_shape, layer.trainable + layer.fixed) for layer in layers] == NOTEBOOK
    assert network.training


@pytest.mark.parametrize("fast", [True, False])
def test_parameter_counts(fast):
    layers = list_layers(NotebookCNN(pool_before_relu=fast, fast_dropout=fast), (1, 48, 48))
    assert sum(layer.trainable for layer in layers) == 4_474_759
    assert sum(layer.fixed for layer in layers) == 3_968


def test_pooling_before_relu_computes_the_same():
    torch.manual_seed(0)
    plain = NotebookCNN(dropout=0.0, pool_before_relu=False, fast_dropout=False)
    fast = NotebookCNN(dropout=0.0, pool_before_relu=True, fast_dropout=True)
    fast.load_state_dict(plain.state_dict())
    x, y = torch.rand(8, 1, 48, 48), torch.randint(7, (8,))
    logits = [network(x) for network in (plain, fast)]
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-6)
    for out in logits:
        nn.functional.cross_entropy(out, y).backward()
    for a, b in zip(plain.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)
    for a, b in zip(plain.buffers(), fast.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_channels_last_computes_the_same():
    torch.manual_seed(0)
    network = NotebookCNN().eval()
    x = torch.rand(4, 1, 48, 48)
    expected = network(x)
    network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(x.to(memory_format=torch.channels_last)), expected, rtol=0, atol=1e-5)


def test_weights_start_as_in_keras():
    torch.manual_seed(0)
    network = NotebookCNN()
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            fan_out = module.weight.shape[0] * module.weight[0, 0].numel()
            bound = math.sqrt(6 / (fan_in + fan_out))  # Glorot & Bengio (2010), eq. 16
            assert module.weight.abs().max() <= bound, name
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1), name
            assert not module.bias.any(), name


def test_batch_norm_moves_as_in_keras():
    # Keras: moving = 0.99 * moving + 0.01 * batch, and (x - mean) / sqrt(variance + 1e-3).
    norm = NotebookCNN().layers.norm5
    x = torch.randn(500, 256) * 3 + 2
    out = norm(x)
    torch.testing.assert_close(norm.running_mean, 0.01 * x.mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(norm.running_var, 0.99 + 0.01 * x.var(0), rtol=1e-4, atol=1e-6)
    expected = (x - x.mean(0)) / torch.sqrt(x.var(0, correction=0) + 1e-3)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
