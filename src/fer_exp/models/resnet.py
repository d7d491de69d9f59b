"""torchvision's ResNet-18 for small grey faces."""

from torch import Tensor, nn
from torchvision.models import resnet18


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016) with the stem that is usual for small images.

    The 7x7 stride-2 convolution and the max-pooling, made for 224 pixels, would leave 2x2 of 48: a 3x3 stride-1
    convolution takes their place, and the last block sees 6x6.

    Args:
        num_classes: number of outputs.
    """

    input_shape = (1, 48, 48)

    def __init__(self, num_classes: int = 7) -> None:
        super().__init__()
        self.network = resnet18(weights=None, num_classes=num_classes)
        self.network.conv1 = nn.Conv2d(1, 64, kernel_size=3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(self.network.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.network.maxpool = nn.Identity()  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised faces (N, 1, 48, 48) to logits (N, num_classes)."""
        logits: Tensor = self.network(x)
        return logits
