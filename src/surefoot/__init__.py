"""Surefoot: minibatch SGD whose every number can be made again, bit for bit."""
