"""Configuration: the schema, the checks, and how a config becomes objects."""
