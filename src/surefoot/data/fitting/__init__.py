"""What is learned from the training rows of each input column."""
