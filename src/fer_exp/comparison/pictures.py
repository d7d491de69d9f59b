"""The figures of a comparison as a report shows them: drawn, and with words."""

import base64
import io
from dataclasses import dataclass

from matplotlib.figure import Figure

from fer_exp.comparison.analysis import Comparison
from fer_exp.plots.comparison_curves import curves_figure
from fer_exp.plots.comparison_learning_rate import learning_rate_figure
from fer_exp.plots.comparison_rows import accuracy_figure, target_figure

CURVES, ACCURACY, TARGET, RATES = "curves.png", "accuracy.png", "time_to_target.png", "learning_rate.png"


@dataclass(frozen=True)
class Picture:
    """A figure, drawn: the name of its file, its bytes, and what is said of it."""

    file: str
    png: bytes
    alt: str
    caption: str

    @property
    def base64(self) -> str:
        """The bytes as a page of HTML holds them."""
        return base64.b64encode(self.png).decode()


def draw_pictures(comparison: Comparison) -> list[Picture]:
    """The figures that the runs allow."""
    figures: list[tuple[str, Figure | None, str, str]] = []
    if any(group.counted for group in comparison.groups):
        figures = [
            (
                CURVES,
                curves_figure(comparison),
                "Curves of loss and accuracy over epochs, one colour for each group",
                "Solid: validation, mean over seeds, within a band from the lowest seed to the highest. Dashed: "
                "training. Means go as far as all runs of the group; beyond, runs that went on are thin lines. A run "
                "that diverged is a thin line that ends in an x, and is in no mean.",
            ),
            (
                ACCURACY,
                accuracy_figure(comparison),
                "A row of dots for each group: val_acc of every run at its best and at its last epoch",
                "Every run that counts, each seed at a height of its own: filled dots are best epochs, open dots last "
                "epochs, bars the medians.",
            ),
            (
                TARGET,
                target_figure(comparison),
                "A row of dots for each group: training until the target was reached, in epochs and in time",
                "Every run that counts, and the median as a bar. A run that missed the target stands under never.",
            ),
        ]
    figures.append(
        (
            RATES,
            learning_rate_figure(comparison),
            "val_acc over the learning rate, a dot for each run",
            "How much the learning rate matters: a dot a run, an x where it diverged, a star where it was chosen; "
            "lines join medians over seeds, of the best of the other settings.",
        )
    )
    return [Picture(file, _png(figure), alt, caption) for file, figure, alt, caption in figures if figure is not None]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
