import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from surefoot.evaluation.metrics import confusion_matrix


@given(st.integers(2, 6).flatmap(lambda classes: st.tuples(st.just(classes), st.lists(st.tuples(*[st.integers(0, classes - 1)] * 2)))))
def test_a_confusion_matrix_counts_each_pair(given):
    classes, pairs = given
    actual, predicted = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    matrix = confusion_matrix(actual, predicted, classes)
    assert matrix.tolist() == [[pairs.count((row, column)) for column in range(classes)] for row in range(classes)]
