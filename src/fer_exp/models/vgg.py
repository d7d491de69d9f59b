"""VGG-type networks for small images."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from fer_exp.models.layers import ByteDropout


class VGG(nn.Module):
    """Blocks of 3x3 convolutions, each with max-pooling and dropout at its end, and a dense head.

    VGG (Simonyan & Zisserman 2015), adapted to 48-pixel images and training from scratch: fewer blocks, batch
    normalization, dropout after each block and a narrow head. Pramerdorfer & Kampel (2016, arXiv 1612.02903) report
    72.7 % on FER2013's private test set for a network of this type. Weights are initialized He-normal.

    Args:
        num_classes: number of logits.
        in_channels: 1 for gray, 3 for RGB images.
        image_size: height and width of the images.
        widths: output channels of each block; each block halves height and width.
        convolutions: number of convolutions in each block.
        dense: output features of the hidden dense layers; empty for none.
        dropout: fraction of values that are dropped after each block and each hidden dense layer.
        fast_dropout: use ``ByteDropout``.

    Raises:
        ValueError: ``widths`` and ``convolutions`` differ in length, an entry is below 1, or there are more blocks than
            the image can be halved.
    """

    def __init__(
        self,
        num_classes: int = 7,
        in_channels: int = 1,
        image_size: int = 48,
        widths: Sequence[int] = (64, 128, 256, 512),
        convolutions: Sequence[int] = (2, 2, 2, 2),
        dense: Sequence[int] = (256,),
        dropout: float = 0.25,
        fast_dropout: bool = True,
    ) -> None:
        super().__init__()
        for name, values in (("widths", widths), ("convolutions", convolutions), ("dense", dense)):
            if any(value < 1 for value in values):
                raise ValueError(f"{name}={list(values)}: expected integers of at least 1")
        if len(widths) != len(convolutions):
            raise ValueError(f"widths={list(widths)}, convolutions={list(convolutions)}: expected one entry per block")
        max_blocks = image_size.bit_length() - 1
        if not 1 <= len(widths) <= max_blocks:
            raise ValueError(
                f"widths={list(widths)}: expected 1 to {max_blocks} blocks; each halves the {image_size} pixels"
            )
        dropout_class = ByteDropout if fast_dropout else nn.Dropout
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = in_channels
        for block, (out, count) in enumerate(zip(widths, convolutions, strict=True), start=1):
            for i in range(1, count + 1):
                layers[f"conv{block}_{i}"] = nn.Conv2d(channels, out, kernel_size=3, padding=1, bias=False)
                layers[f"norm{block}_{i}"] = nn.BatchNorm2d(out)
                if i == count:  # before the ReLU: the same result with a quarter of the ReLU's work
                    layers[f"pool{block}"] = nn.MaxPool2d(2)
                layers[f"relu{block}_{i}"] = nn.ReLU(inplace=True)
                channels = out
            layers[f"drop{block}"] = dropout_class(dropout)
        layers["flatten"] = nn.Flatten()
        features = channels * (image_size // 2 ** len(widths)) ** 2
        for i, out in enumerate(dense, start=1):
            layers[f"dense{i}"] = nn.Linear(features, out, bias=False)
            layers[f"dense_norm{i}"] = nn.BatchNorm1d(out)
            layers[f"dense_relu{i}"] = nn.ReLU(inplace=True)
            layers[f"dense_drop{i}"] = dropout_class(dropout)
            features = out
        layers["logits"] = nn.Linear(features, num_classes)
        self.layers = nn.Sequential(layers)
        self.apply(_init_he)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, image_size, image_size) in [0, 1] to logits (N, num_classes)."""
        logits: Tensor = self.layers(x)
        return logits


def _init_he(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
