"""From run records to an answer: which choice is better, by how much, how sure. Reads records and nothing else."""
