"""The experiments of docs/tutorial.md."""
