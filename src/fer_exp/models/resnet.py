"""ResNet-18 for small grey faces, of torchvision's blocks."""

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016) with the stem that is usual for small images.

    The 7x7 stride-2 convolution and the max-pooling, made for 224 pixels, would leave 2x2 of 48: a 3x3 convolution
    takes their place, and the last block sees 6x6. Names and initial weights (He-normal, by fan-out) are torchvision's.

    Args:
        num_classes: number of outputs.
        width: channels of the first stage; each of the three others doubles them.
        stem_stride: stride of the first convolution. 2 takes a quarter of the work, and the last block sees 3x3.
        dropout: share of the averaged features that is dropped before the last layer.

    Raises:
        ValueError: ``width`` is below 1, ``stem_stride`` is neither 1 nor 2, or ``dropout`` is not in [0, 1].
    """

    input_shape = (1, 48, 48)

    def __init__(self, num_classes: int = 7, width: int = 64, stem_stride: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width={width}: expected a whole number from 1 up")
        if stem_stride not in (1, 2):
            raise ValueError(f"stem_stride={stem_stride}: expected 1 or 2")
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv1"] = nn.Conv2d(1, width, kernel_size=3, stride=stem_stride, padding=1, bias=False)
        layers["bn1"] = nn.BatchNorm2d(width)
        layers["relu"] = nn.ReLU(inplace=True)
        layers["layer1"] = nn.Sequential(BasicBlock(width, width), BasicBlock(width, width))
        for i in (2, 3, 4):
            layers[f"layer{i}"] = nn.Sequential(_halving_block(width), BasicBlock(2 * width, 2 * width))
            width *= 2
        layers["avgpool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["drop"] = nn.Dropout(dropout)
        layers["fc"] = nn.Linear(width, num_classes)
        self.network = nn.Sequential(layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised faces (N, 1, 48, 48) to logits (N, num_classes)."""
        logits: Tensor = self.network(x)
        return logits


def _halving_block(width: int) -> BasicBlock:
    """A block that halves height and width and doubles the channels, on its shortcut too."""
    shortcut = nn.Sequential(nn.Conv2d(width, 2 * width, 1, stride=2, bias=False), nn.BatchNorm2d(2 * width))
    return BasicBlock(width, 2 * width, stride=2, downsample=shortcut)
