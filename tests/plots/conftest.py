import io

import numpy as np
import pytest
from PIL import Image

from fer_exp.plots.style import render


@pytest.fixture(params=["light", "dark"])
def theme_name(request):
    return request.param


@pytest.fixture
def png():
    """A function that draws a plot and returns its pixels (H, W, 3)."""

    def draw(figure_function, theme_name="light"):
        return np.asarray(Image.open(io.BytesIO(render(figure_function, theme_name))).convert("RGB"))

    return draw
