"""`params.yaml` as checked types, and what DVC must be told of it."""
