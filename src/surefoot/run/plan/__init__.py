"""What is to be trained, in parts that do one thing each; `planning` puts them together.

inputs      what a training is made of, before anything is built
builder     the network, its optimizer and all else that trains, from those inputs
checks      what can be seen to be wrong before the first step
identity    what determines the run, and the digest of it
"""
