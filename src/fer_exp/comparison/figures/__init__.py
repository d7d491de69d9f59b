"""Pictures of a comparison, each a function from a Comparison to a matplotlib Figure."""
