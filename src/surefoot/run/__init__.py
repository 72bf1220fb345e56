"""One run: what is planned, the chain of its states, what is known of it, and its way to MLflow."""
