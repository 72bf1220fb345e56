"""What knows nothing of training: errors, files, locks, the terminal, code of the user's."""
