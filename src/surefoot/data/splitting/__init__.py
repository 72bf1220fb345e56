"""Which row goes into which split: a pure function of the seed, and of the row's class, group or time."""
