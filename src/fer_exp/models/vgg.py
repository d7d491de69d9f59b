"""VGG-type networks for small grey faces."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from fer_exp.models.dropout import ByteDropout


class VGG(nn.Module):
    """Blocks of 3x3 convolutions, each halved by max-pooling and followed by dropout, and a dense head.

    The plan of VGG (Simonyan & Zisserman 2015) with what suits 48 pixels and a training from scratch: fewer blocks,
    batch normalisation, dropout after each block and a narrow head. Pramerdorfer & Kampel (2016, arXiv 1612.02903)
    report 72.7 % on FER2013's private test for a network of this type. Kernels start He-normal (He et al. 2015) and
    biases at zero.

    Args:
        num_classes: number of outputs.
        widths: channels of each block; the block's last layer halves height and width.
        convolutions: number of 3x3 convolutions in each block.
        dense: widths of the hidden dense layers; empty for none.
        dropout: share of values dropped after each block and each hidden dense layer.
        fast_dropout: cut dropout masks from random bytes instead of drawing a float a value; the same rate.

    Raises:
        ValueError: a width or a number of convolutions is not a whole number from 1 up, there are not as many
            ``convolutions`` as ``widths``, or more blocks than 48 pixels can be halved.
    """

    input_shape = (1, 48, 48)

    def __init__(
        self,
        num_classes: int = 7,
        widths: Sequence[int] = (64, 128, 256, 512),
        convolutions: Sequence[int] = (2, 2, 2, 2),
        dense: Sequence[int] = (256,),
        dropout: float = 0.25,
        fast_dropout: bool = True,
    ) -> None:
        super().__init__()
        channels, height, width = self.input_shape
        _check_counts(widths=widths, convolutions=convolutions, dense=dense)
        if len(widths) != len(convolutions):
            raise ValueError(
                f"widths={list(widths)} and convolutions={list(convolutions)}: expected lists of the same length, "
                "an entry a block"
            )
        if not 1 <= len(widths) < height.bit_length():
            raise ValueError(
                f"widths={list(widths)}: expected 1 to {height.bit_length() - 1} blocks, as each halves {height} pixels"
            )
        drop = ByteDropout if fast_dropout else nn.Dropout
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for block, (out, count) in enumerate(zip(widths, convolutions, strict=True), start=1):
            for i in range(1, count + 1):
                layers[f"conv{block}_{i}"] = nn.Conv2d(channels, out, kernel_size=3, padding=1, bias=False)
                layers[f"norm{block}_{i}"] = nn.BatchNorm2d(out)
                if i == count:  # before the ReLU: both are monotone, and the ReLU has a quarter of the work
                    layers[f"pool{block}"] = nn.MaxPool2d(2)
                layers[f"relu{block}_{i}"] = nn.ReLU(inplace=True)
                channels = out
            layers[f"drop{block}"] = drop(dropout)
            height, width = height // 2, width // 2
        layers["flatten"] = nn.Flatten()
        features = channels * height * width
        for i, out in enumerate(dense, start=1):
            layers[f"dense{i}"] = nn.Linear(features, out, bias=False)
            layers[f"dense_norm{i}"] = nn.BatchNorm1d(out)
            layers[f"dense_relu{i}"] = nn.ReLU(inplace=True)
            layers[f"dense_drop{i}"] = drop(dropout)
            features = out
        layers["logits"] = nn.Linear(features, num_classes)
        self.layers = nn.Sequential(layers)
        self.apply(_initialise_as_he)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised faces (N, 1, 48, 48) to logits (N, num_classes)."""
        logits: Tensor = self.layers(x)
        return logits


def _check_counts(**lists: Sequence[int]) -> None:
    for name, values in lists.items():
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise ValueError(f"{name}={values}: expected a list of whole numbers from 1 up")
        if any(isinstance(value, bool) or not isinstance(value, int) or value < 1 for value in values):
            raise ValueError(f"{name}={list(values)}: expected whole numbers from 1 up")


def _initialise_as_he(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
