"""What every network must do, and what each computes beside its reference."""

import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from fer_exp.errors import UserError
from fer_exp.models.notebook_cnn import NotebookCNN
from fer_exp.models.resnet import ResNet18
from fer_exp.models.summary import count_parameters, eval_mode, format_layers, list_layers, output_shape
from fer_exp.models.timm_model import TimmNetwork
from fer_exp.models.vgg import VGG

SMALL = {"widths": (4, 8), "convolutions": (1, 2), "dense": (16,)}
# timm's own miniatures, with a few hundred thousand parameters.
NETWORKS = {
    "vgg": lambda **k: VGG(**SMALL, **k),
    "resnet": lambda image_size=48, **k: ResNet18(width=4, stem_stride=2, dropout=0.5, **k),
    "timm_cnn": lambda **k: TimmNetwork("test_resnet", dropout=0.5, **k),
    "timm_transformer": lambda **k: TimmNetwork("test_vit", dropout=0.5, **k),
}


@pytest.fixture(params=NETWORKS)
def make(request):
    return NETWORKS[request.param]


def test_a_few_steps_reach_every_parameter_and_lower_the_loss(make):
    torch.manual_seed(0)
    network = make()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    x, labels, losses = torch.rand(28, 1, 48, 48), torch.arange(28) % 7, []
    for _ in range(12):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())
    assert losses[-1] < 0.8 * losses[0]


def test_training_depends_on_the_seed_and_evaluation_does_not(make):
    network, x = make(), torch.rand(8, 1, 48, 48)
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(network(x))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    network.eval()
    assert torch.equal(network(x), network(x))


@pytest.mark.parametrize("settings", [{"num_classes": 2, "in_channels": 3, "image_size": 64}, {"num_classes": 100}])
def test_networks_follow_classes_colour_and_size(make, settings):
    size = settings.get("image_size", 48)
    network = make(**settings).eval()
    assert network(torch.zeros(2, settings.get("in_channels", 1), size, size)).shape == (2, settings["num_classes"])


def test_the_notebooks_network_follows_the_image_size():
    assert NotebookCNN(3, 3, 64).eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    with pytest.raises(ValueError, match="image_size=8"):
        NotebookCNN(image_size=8)


def test_every_parameter_and_buffer_is_listed_once(make):
    network = make()
    layers = list_layers(network, (1, 48, 48))
    counts = sum(layer.trainable for layer in layers), sum(layer.fixed for layer in layers)
    assert counts == count_parameters(network)
    assert counts[0] == sum(p.numel() for p in network.parameters())


def test_a_module_with_several_outputs_is_listed_by_the_first():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1, 1, 48))
            self.attention = nn.MultiheadAttention(48, 2, batch_first=True)
            self.logits = nn.Linear(48, 7)

        def forward(self, x):
            rows = torch.cat([self.token.expand(len(x), -1, -1), x.squeeze(1)], 1)
            return self.logits(self.attention(rows, rows, rows)[0][:, 0])

    network = Attention()
    shapes = {layer.kind: layer.output_shape for layer in list_layers(network, (1, 48, 48))}
    assert shapes == {"MultiheadAttention": (49, 48), "Linear": (7,), "Attention": (7,)}
    # 48 of the token, 4 x (48 x 48 + 48) of the attention, 48 x 7 + 7 of the logits.
    assert count_parameters(network) == (48 + 4 * 2352 + 343, 0)


def test_frozen_parameters_and_modules_without_a_tensor_are_counted_as_such():
    class Features(nn.Module):
        def __init__(self, returned):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(48 * 48, 4), requires_grad=False)
            self.returned = returned

        def forward(self, x):
            return self.returned(x.flatten(1) @ self.weight)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.named, self.nothing = Features(lambda x: {"loss": None, "x": x}), Features(lambda x: None)
            self.logits = nn.Linear(4, 7)

        def forward(self, x):
            self.nothing(x)
            return self.logits(self.named(x)["x"])

    layers = {
        layer.name: (layer.output_shape, layer.trainable, layer.fixed) for layer in list_layers(Network(), (1, 48, 48))
    }
    assert layers == {"named": ((4,), 0, 9216), "logits": ((7,), 35, 0)}
    assert count_parameters(Network()) == (35, 2 * 9216)
    assert format_layers([]) == ""


def test_eval_mode_restores_the_mode_of_each_module():
    network = VGG(**SMALL)
    frozen = network.get_submodule("layers.norm1_1").eval()
    with eval_mode(network):
        assert not any(module.training for module in network.modules())
    assert [module for module in network.modules() if not module.training] == [frozen]


@pytest.mark.parametrize(
    "plan", [((64, 128, 256, 512), (2, 2, 2, 2), (256,)), ((4, 8), (1, 2), ()), ((4, 8), (1, 2), (16, 8))]
)
def test_vgg_has_the_parameters_of_its_plan(plan):
    widths, convolutions, dense = plan
    channels = [1, *(width for width, n in zip(widths, convolutions, strict=True) for _ in range(n))]
    features = [widths[-1] * (48 // 2 ** len(widths)) ** 2, *dense]
    expected = sum(9 * a * b + 2 * b for a, b in pairwise(channels)) + sum(a * b + 2 * b for a, b in pairwise(features))
    assert sum(p.numel() for p in VGG(7, 1, 48, *plan).parameters()) == expected + (features[-1] + 1) * 7


def test_vgg_starts_he_normal():
    torch.manual_seed(0)
    for name, module in VGG().named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            error = 5 / (2 * module.weight.numel()) ** 0.5  # five standard errors
            expected = (2 / module.weight[0].numel()) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=error), name


def test_resnet_computes_what_torchvision_computes():
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=7)
    theirs.conv1 = nn.Conv2d(1, 64, kernel_size=3, stride=1, padding=1, bias=False)
    theirs.maxpool = nn.Identity()
    ours = ResNet18()
    ours.network.load_state_dict(theirs.state_dict())
    x = torch.rand(2, 1, 48, 48)
    for train in (True, False):  # training first, so that the running statistics are no longer 0 and 1
        theirs.train(train), ours.train(train)
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.network.state_dict(), theirs.state_dict())


@pytest.mark.parametrize(("name", "channels"), [("test_resnet", 1), ("test_resnet", 3), ("test_vit", 1)])
def test_timm_network_computes_what_timm_computes(name, channels):
    torch.manual_seed(0)
    network = TimmNetwork(name, in_channels=channels)
    theirs = timm.create_model(
        name, in_chans=channels, num_classes=7, **({"img_size": 48} if name == "test_vit" else {})
    )
    theirs.eval().load_state_dict(network.network.state_dict())
    cfg, x = timm.get_pretrained_cfg(name), torch.rand(3, channels, 48, 48)
    mean, std = torch.tensor(cfg.mean), torch.tensor(cfg.std)
    if channels == 1:
        mean, std = mean.mean(), std.mean()
    normalized = (x - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    torch.testing.assert_close(network.eval()(x), theirs(normalized))


@pytest.mark.parametrize(
    ("network", "settings", "named"),
    [
        (VGG, {"widths": [64, 0, 256, 512]}, "widths=[64, 0, 256, 512]"),
        (VGG, {"widths": [8, 8]}, "widths=[8, 8]"),
        (VGG, {"widths": [1] * 6, "convolutions": [1] * 6}, "1 to 5 blocks"),
        (VGG, {"dropout": 1.0}, "dropout=1.0"),
        (ResNet18, {"width": 0}, "width=0"),
        (ResNet18, {"stem_stride": -1}, "stem_stride=-1"),
        (TimmNetwork, {"name": "mobilenetv3_smal_100"}, "mobilenetv3_small_100"),
        (TimmNetwork, {"name": 5}, "name=5"),
        (TimmNetwork, {"name": "ghostnet_050", "drop_path": 0.1}, "ghostnet_050"),  # has no such setting
    ],
)
def test_impossible_settings_are_refused_by_name(network, settings, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        network(**settings)


def test_a_network_that_needs_larger_images_is_refused():
    with pytest.raises(UserError, match=r"TimmNetwork, called with images of shape \(N, 1, 48, 48\)"):
        output_shape(TimmNetwork("halonet26t"), (1, 48, 48))


def test_without_timm_the_message_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install"):
        TimmNetwork("test_resnet")


def _save(tmp_path, state, name="weights.pt"):
    file = tmp_path / name
    save_file(state, file) if name.endswith(".safetensors") else torch.save(state, file)
    return str(file)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "network.network."])
def test_weights_of_a_file_replace_all_but_the_last_layer(tmp_path, name, prefix):
    theirs = timm.create_model("test_resnet", num_classes=10).state_dict()
    file = _save(tmp_path, {f"{prefix}{key}": value for key, value in theirs.items()}, name)
    torch.manual_seed(1)
    own = TimmNetwork("test_resnet", in_channels=3, weights=file).network.state_dict()
    torch.manual_seed(1)
    untrained = TimmNetwork("test_resnet", in_channels=3).network.state_dict()
    for key, value in own.items():
        torch.testing.assert_close(value, untrained[key] if key.startswith("fc.") else theirs[key], rtol=0, atol=0)


def test_weights_for_rgb_images_are_summed_for_gray_ones(tmp_path):
    theirs = timm.create_model("test_resnet", num_classes=7)
    rgb = TimmNetwork("test_resnet", in_channels=3, weights=_save(tmp_path, {"model": theirs.state_dict()})).eval()
    gray = TimmNetwork("test_resnet", in_channels=1, weights=_save(tmp_path, theirs.state_dict())).eval()
    gray.network.fc.load_state_dict(rgb.network.fc.state_dict())
    x = torch.rand(2, 1, 48, 48)
    # The same normalization of all channels, so that three equal channels are one gray image.
    for network in (rgb, gray):
        network.mean.fill_(0.5), network.std.fill_(0.25)
    torch.testing.assert_close(gray(x), rgb(x.expand(-1, 3, -1, -1)))


def test_weights_of_a_transformer_fit_another_image_size(tmp_path):
    theirs = timm.create_model("test_vit", img_size=96)
    network = TimmNetwork("test_vit", in_channels=3, image_size=48, weights=_save(tmp_path, theirs.state_dict()))
    torch.testing.assert_close(network.network.blocks[0].attn.qkv.weight, theirs.blocks[0].attn.qkv.weight)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (lambda: timm.create_model("test_efficientnet").state_dict(), "missing"),
        (lambda: {"fc.weight": torch.zeros(3)}, "missing"),
        (lambda: timm.create_model("test_resnet").state_dict() | {"zz.weight": torch.zeros(3)}, r"1 unexpected .zz\.w"),
        (lambda: {"network": nn.Linear(1, 1)}, "weights.pt"),
        (lambda: [1, 2], "weights.pt"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, content, named):
    with pytest.raises(ValueError, match=named):
        TimmNetwork("test_resnet", weights=_save(tmp_path, content()))


@pytest.mark.parametrize("answers", [True, False], ids=["a server that sends no files", "no server"])
def test_weights_that_cannot_be_downloaded_name_the_key_for_a_file(monkeypatch, tmp_path, answers):
    class Server(BaseHTTPRequestHandler):
        def do_HEAD(self):
            if self.path == "/":
                self.send_response(200)
                self.end_headers()
            else:
                given_up.wait(10)

        def log_message(self, *_):
            pass

    given_up = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    address = f"http://127.0.0.1:{server.server_port if answers else 9}"  # nothing listens at port 9
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("fer_exp.models.timm_model._CONNECT_SECONDS", 0.2)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    start = time.perf_counter()
    try:
        with pytest.raises(ValueError, match=r"model\.weights=FILE"):
            TimmNetwork("resnet10t", pretrained=True)
        assert time.perf_counter() - start < 5  # the download itself would wait for more than a minute
    finally:
        given_up.set()
        server.shutdown()
        server.server_close()


def test_the_normalization_can_be_set_and_is_saved():
    network = TimmNetwork("test_resnet", in_channels=3, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    assert network.state_dict()["mean"].flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="mean"):
        TimmNetwork("test_resnet", in_channels=3, mean=[0.5])
