"""TensorBoard: what a run shows there."""
