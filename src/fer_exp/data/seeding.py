"""Independent random seeds for each part of a run, derived from its one seed."""

import numpy as np

DATA_ORDER, TRAINING, VAL_SPLIT = range(3)  # streams; VAL_SPLIT is drawn from seed 0 in every run


def derive_seed(seed: int, *stream: int) -> int:
    """Return a 63-bit seed for a stream, independent of the seeds of other streams.

    Data order and dropout masks are drawn from ``(seed, stream, epoch)``: every optimizer sees the same order, and a
    resumed run draws what an uninterrupted one draws.
    """
    return int(np.random.SeedSequence([seed, *stream]).generate_state(1, np.uint64)[0] >> np.uint64(1))
