"""MLflow: writing runs, finding them, what their pages show."""
