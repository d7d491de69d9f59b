"""Seeds for each use of chance in a run, derived from the one seed that a person sets."""

import numpy as np


def derive_seed(seed: int, *path: int) -> int:
    """A 63-bit seed for the stream that ``path`` names, independent of the seeds of all other paths.

    A run draws its data order and its dropout masks from ``(seed, stream, epoch)``: every optimizer sees the same
    order, and a run that is resumed at an epoch's start draws what it would have drawn.
    """
    return int(np.random.SeedSequence([seed, *path]).generate_state(1, np.uint64)[0] >> np.uint64(1))


# The streams of a run; the last is drawn from the same seed in every run, whatever its own.
DATA_ORDER, TRAINING, VAL_SPLIT = range(3)
