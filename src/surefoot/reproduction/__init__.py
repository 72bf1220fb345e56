"""A commit and its environment, elsewhere: checkout, packages, scratch space; and what tells where code and data came
from.
"""
