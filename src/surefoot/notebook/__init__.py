"""`surefoot.run`: the pipeline from Python and notebooks, with a `Result` that shows itself there."""
