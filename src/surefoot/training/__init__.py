"""Minibatch SGD as a pure function of its arguments."""
