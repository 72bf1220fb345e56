"""`surefoot verify`: make a run again, elsewhere, and compare bits."""
