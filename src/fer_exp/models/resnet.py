"""ResNet-18 for small images, built from torchvision's blocks."""

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016) with the stem that is usual for small images.

    torchvision's 7x7 stride-2 convolution and max-pooling suit 224 pixels and would reduce a 48-pixel image to 2x2.
    Here the stem is one 3x3 convolution, and the last stage sees 6x6. Names and initialization are torchvision's.

    Args:
        num_classes: number of logits.
        in_channels: 1 for gray, 3 for RGB images.
        width: channels of the first stage; each further stage doubles them.
        stem_stride: stride of the first convolution; 2 means a quarter of the work.
        dropout: fraction of the pooled features that are dropped before the last layer.

    Raises:
        ValueError: ``width`` or ``stem_stride`` is below 1.
    """

    def __init__(
        self, num_classes: int = 7, in_channels: int = 1, width: int = 64, stem_stride: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if min(width, stem_stride) < 1:
            raise ValueError(f"width={width}, stem_stride={stem_stride}: expected integers of at least 1")
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv1"] = nn.Conv2d(in_channels, width, kernel_size=3, stride=stem_stride, padding=1, bias=False)
        layers["bn1"] = nn.BatchNorm2d(width)
        layers["relu"] = nn.ReLU(inplace=True)
        layers["layer1"] = nn.Sequential(BasicBlock(width, width), BasicBlock(width, width))
        for i in (2, 3, 4):
            layers[f"layer{i}"] = nn.Sequential(_downsampling_block(width), BasicBlock(2 * width, 2 * width))
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
        """Map images (N, in_channels, H, W) in [0, 1] to logits (N, num_classes)."""
        logits: Tensor = self.network(x)
        return logits


def _downsampling_block(width: int) -> BasicBlock:
    """A block that halves height and width and doubles the channels."""
    shortcut = nn.Sequential(nn.Conv2d(width, 2 * width, 1, stride=2, bias=False), nn.BatchNorm2d(2 * width))
    return BasicBlock(width, 2 * width, stride=2, downsample=shortcut)
