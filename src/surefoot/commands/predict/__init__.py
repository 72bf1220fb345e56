"""`surefoot predict`: predictions beside the raw rows of a file."""
