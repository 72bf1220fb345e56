"""`surefoot search`: an Optuna search over params."""
