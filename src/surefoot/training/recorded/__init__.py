"""Steps without Python: an eager step is recorded once, and its operations are run by torch's own executor. They give
the same bits, so nothing in here is part of what determines a run.
"""
