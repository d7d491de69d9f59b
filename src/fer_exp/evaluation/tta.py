"""The views of a face that a network is shown, and its answer averaged over them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from fer_exp.data.dataset import normalise
from fer_exp.data.decode import SIZE, Progress
from fer_exp.errors import UserError
from fer_exp.runs.checkpoint import LoadedModel

CROP = 44  # pixels a side, of the crops of ten_crop


def _single(faces: Tensor) -> Sequence[Tensor]:
    return (faces,)


def _flip(faces: Tensor) -> Sequence[Tensor]:
    return faces, faces.flip(-1)


def _ten_crop(faces: Tensor) -> Sequence[Tensor]:
    """Corners and centre, and their mirrors (Krizhevsky et al. 2012), each brought back to the network's input size."""
    return [
        F.interpolate(crop, (SIZE, SIZE), mode="bilinear", align_corners=False)
        for crop in v2.functional.ten_crop(faces, [CROP, CROP])
    ]


# Each maps normalised faces (N, 1, 48, 48) to views of the same shape. All but the first are test-time augmentation.
_MAKE: Mapping[str, Callable[[Tensor], Sequence[Tensor]]] = {"single": _single, "flip": _flip, "ten_crop": _ten_crop}


@torch.inference_mode()
def log_probabilities(
    trained: LoadedModel, batches: Iterable[Tensor], view: str, number: int, progress: Progress | None = None
) -> Tensor:
    """What the network says about each face: the log of its probabilities, averaged over the views.

    Args:
        trained: the network, on the device where it is to work.
        batches: faces (B, 1, 48, 48) uint8.
        view: one of ``protocol.VIEWS``.
        number: N, of faces in all.
        progress: called with (faces done, N).

    Returns:
        (N, C) float64, on the CPU.

    Raises:
        UserError: the network's answers are not finite.
    """
    parts, done = [], 0
    for batch in batches:
        views = _MAKE[view](normalise(batch.to(trained.device)))
        # Copied to float64 on the CPU: Apple's GPUs have none.
        answers = torch.stack([trained.logits(faces).cpu().double().log_softmax(dim=1) for faces in views])
        done += len(batch)
        parts.append(answers.logsumexp(dim=0) - math.log(len(answers)))
        if progress:
            progress(done, number)
    answer = torch.cat(parts)
    if not bool(answer.isfinite().all()):
        rather = ", or trainer.precision=32-true" if trained.precision == "16-mixed" else ""  # beyond 65504 it has none
        raise UserError(
            f"{trained.path}: the network answers with values that are not finite; expected the checkpoint of a run "
            f"that did not diverge{rather}."
        )
    return answer
