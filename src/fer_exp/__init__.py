"""Train and compare facial-expression networks."""
