"""The notebook's network, with the semantics of Keras's layers."""

from collections import OrderedDict

from torch import Tensor, nn

from fer_exp.models.layers import ByteDropout

# Defaults of Keras's BatchNormalization. Its momentum weights the old statistics, PyTorch's the new ones: 0.99 is 0.01.
BATCH_NORM_EPS = 1e-3
BATCH_NORM_MOMENTUM = 0.01

CONVOLUTIONS = ((64, 3), (128, 5), (512, 3), (512, 3))  # (output channels, kernel size) of each block
DENSE = (256, 512)  # output features of the hidden dense layers


class NotebookCNN(nn.Module):
    """Four convolution blocks and two dense layers.

    With 1x48x48 images and 7 classes: 4,474,759 trainable and 3,968 non-trainable parameters, as in the notebook.
    Weights are initialized Glorot-uniform and biases with zeros, as in Keras.

    Args:
        num_classes: number of logits.
        in_channels: 1 for gray, 3 for RGB images.
        image_size: height and width of the images; at least 16.
        dropout: fraction of values that are dropped after each block.
        pool_before_relu: pool before the ReLU. The result is the same, and the ReLU has a quarter of the work.
        fast_dropout: use ``ByteDropout``.

    Raises:
        ValueError: ``image_size`` is too small to be halved four times.
    """

    def __init__(
        self,
        num_classes: int = 7,
        in_channels: int = 1,
        image_size: int = 48,
        dropout: float = 0.25,
        pool_before_relu: bool = True,
        fast_dropout: bool = True,
    ) -> None:
        super().__init__()
        map_size = image_size // 2 ** len(CONVOLUTIONS)
        if map_size < 1:
            raise ValueError(f"image_size={image_size}: expected at least {2 ** len(CONVOLUTIONS)} pixels")
        dropout_class = ByteDropout if fast_dropout else nn.Dropout
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = in_channels
        for i, (out, kernel) in enumerate(CONVOLUTIONS, start=1):
            layers[f"conv{i}"] = nn.Conv2d(channels, out, kernel, padding="same")
            layers[f"norm{i}"] = nn.BatchNorm2d(out, BATCH_NORM_EPS, BATCH_NORM_MOMENTUM)
            pool_and_relu = [(f"pool{i}", nn.MaxPool2d(2)), (f"relu{i}", nn.ReLU(inplace=True))]
            layers.update(pool_and_relu if pool_before_relu else pool_and_relu[::-1])
            layers[f"drop{i}"] = dropout_class(dropout)
            channels = out
        layers["flatten"] = nn.Flatten()
        features = channels * map_size**2
        for i, out in enumerate(DENSE, start=len(CONVOLUTIONS) + 1):
            layers[f"dense{i}"] = nn.Linear(features, out)
            layers[f"norm{i}"] = nn.BatchNorm1d(out, BATCH_NORM_EPS, BATCH_NORM_MOMENTUM)
            layers[f"relu{i}"] = nn.ReLU(inplace=True)
            layers[f"drop{i}"] = dropout_class(dropout)
            features = out
        layers["logits"] = nn.Linear(features, num_classes)
        self.layers = nn.Sequential(layers)
        self.apply(_init_like_keras)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, image_size, image_size) in [0, 1] to logits (N, num_classes)."""
        logits: Tensor = self.layers(x)
        return logits


def _init_like_keras(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
