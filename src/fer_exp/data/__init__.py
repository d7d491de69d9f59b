"""Class folders in, batches out."""
