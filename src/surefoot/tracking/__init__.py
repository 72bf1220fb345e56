"""MLflow: a client with bounded waits, writing runs, finding them."""
