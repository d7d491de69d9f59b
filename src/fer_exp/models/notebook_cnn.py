"""The notebook's network, with Keras's meaning of each layer."""

from collections import OrderedDict

from torch import Tensor, nn

from fer_exp.models.dropout import ByteDropout

# Keras's defaults for BatchNormalization. Its momentum is the share of the old value that stays, torch's the share
# of the new one that enters: 0.99 there is 0.01 here.
BATCH_NORM_EPS = 1e-3
BATCH_NORM_MOMENTUM = 0.01

# (channels out, kernel size) of the four convolution blocks, and the widths of the two hidden dense layers.
CONVOLUTIONS = ((64, 3), (128, 5), (512, 3), (512, 3))
DENSE = (256, 512)


class NotebookCNN(nn.Module):
    """Four convolution blocks and two dense ones: 4,474,759 trainable and 3,968 non-trainable parameters.

    Kernels start Glorot-uniform and biases at zero, as in Keras.

    Args:
        num_classes: number of outputs.
        dropout: share of values dropped after each block.
        pool_before_relu: put the 2x2 max-pooling before the ReLU. Both are monotone, so the function is the same,
            and the ReLU has a quarter of the work.
        fast_dropout: cut dropout masks from random bytes instead of drawing a float a value; the same rate.
    """

    input_shape = (1, 48, 48)

    def __init__(
        self,
        num_classes: int = 7,
        dropout: float = 0.25,
        pool_before_relu: bool = True,
        fast_dropout: bool = True,
    ) -> None:
        super().__init__()
        drop = ByteDropout if fast_dropout else nn.Dropout
        channels, height, width = self.input_shape
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, (out, kernel) in enumerate(CONVOLUTIONS, start=1):
            layers[f"conv{i}"] = nn.Conv2d(channels, out, kernel, padding="same")
            layers[f"norm{i}"] = nn.BatchNorm2d(out, BATCH_NORM_EPS, BATCH_NORM_MOMENTUM)
            if pool_before_relu:
                layers[f"pool{i}"] = nn.MaxPool2d(2)
                layers[f"relu{i}"] = nn.ReLU(inplace=True)
            else:
                layers[f"relu{i}"] = nn.ReLU(inplace=True)
                layers[f"pool{i}"] = nn.MaxPool2d(2)
            layers[f"drop{i}"] = drop(dropout)
            channels, height, width = out, height // 2, width // 2
        layers["flatten"] = nn.Flatten()
        features = channels * height * width
        for i, out in enumerate(DENSE, start=len(CONVOLUTIONS) + 1):
            layers[f"dense{i}"] = nn.Linear(features, out)
            layers[f"norm{i}"] = nn.BatchNorm1d(out, BATCH_NORM_EPS, BATCH_NORM_MOMENTUM)
            layers[f"relu{i}"] = nn.ReLU(inplace=True)
            layers[f"drop{i}"] = drop(dropout)
            features = out
        layers["logits"] = nn.Linear(features, num_classes)
        self.layers = nn.Sequential(layers)
        self.apply(_initialise_as_keras)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised faces (N, 1, 48, 48) to logits (N, num_classes)."""
        logits: Tensor = self.layers(x)
        return logits


def _initialise_as_keras(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
