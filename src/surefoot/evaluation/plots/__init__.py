"""The plots, a file a kind."""
