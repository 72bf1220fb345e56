import itertools
import sys

import numpy as np
import pytest

from tests.unit.data.readers.reading import read, read_arrays, refusal, source_of

NUMBERS = itertools.count()


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes a module with a function `rows`; returns its path as prepare.source has it, and the file."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(body):
        file = tmp_path / f"mine{next(NUMBERS)}.py"
        file.write_text(f"import numpy as np\nimport pyarrow as pa\n\n\ndef rows():\n    {body}\n")
        return f"{file.stem}:rows", file

    return write


@pytest.mark.parametrize(
    "body",
    [
        "return pa.table({'a': [1, 2], 'kind': ['x', None]})",
        "return pa.RecordBatch.from_pydict({'a': [1, 2], 'kind': ['x', None]})",
        "return {'a': [1, 2], 'kind': np.array(['x', None])}",
        (
            "return iter([{'a': np.array([1]), 'kind': ['x']}, pa.table({'kind': pa.array([None], pa.string()), 'a':"
            " [2]})])"
        ),
        (
            "yield pa.table({'a': pa.array([], pa.int64()), 'kind': pa.array([], pa.string())})\n    yield {'a': [1,"
            " 2], 'y': ['x', None]}"
        ),
    ],
)
def test_what_a_function_may_give(mine, body):
    path, _ = mine(body)
    assert read(path) == (["a", "kind"], [{"a": 1, "kind": "x"}, {"a": 2, "kind": None}])
    assert source_of(path).where(1) == f"{path}(): row 2"


def test_arrays_of_more_axes_are_inputs(mine):
    path, _ = mine("for k in range(3): yield {'x': np.full((2, 3, 4), k, np.uint8), 'y': np.array([k, k])}")
    inputs, targets = read_arrays(path)
    assert (
        inputs.dtype == np.uint8
        and inputs.shape == (6, 3, 4)
        and targets == [0, 0, 1, 1, 2, 2]
        and inputs[5, 0, 0] == 2
    )


def test_a_function_that_fails_is_told_with_file_and_line(mine):
    for body, line in [("return 1 / 0", 6), ("yield {'a': [1], 'kind': ['x']}\n    1 / 0", 7)]:
        path, file = mine(body)
        assert (
            refusal(path)
            == f"prepare.source: {path}() failed: ZeroDivisionError: division by zero ({file}, line {line})"
        )
    path, file = mine("import sys; sys.exit('no')")
    assert refusal(path) == f"prepare.source: {path}() failed: SystemExit: no ({file}, line 6)"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            "return None",
            (
                "returned a NoneType; a pyarrow.RecordBatch, a pyarrow.Table or a dict of arrays, or an iterator of"
                " such is needed"
            ),
        ),
        (
            "return [3]",
            "gives a int; a pyarrow.RecordBatch, a pyarrow.Table or a dict of arrays, or an iterator of such is needed",
        ),
        ("return []", "gives no rows"),
        ("return {'a': [1, 2], 'kind': ['x']}", "the arrays differ in length: {'a': 2, 'kind': 1}"),
        (
            "return {'a': np.zeros((1, 2)), 'b': np.zeros((1, 2)), 'kind': ['x']}",
            "more than one array has more than one axis; there can be one array of inputs",
        ),
        (
            "return {'a': np.zeros((1, 2), complex), 'kind': ['x']}",
            "array 'a' holds complex128 values; inputs must be numbers of 64 bits at most",
        ),
        (
            "return iter([{'a': [1], 'kind': ['x']}, {'kind': ['x']}])",
            "gives a batch, from row 2 on, that lacks column 'a'; its first was a: int64, kind: string",
        ),
        (
            "return iter([{'a': [1], 'kind': ['x']}, {'a': [.5], 'kind': ['x']}])",
            "gives a batch, from row 2 on, that is a: double, kind: string; its first was a: int64, kind: string",
        ),
    ],
)
def test_what_a_function_may_not_give(mine, body, told):
    path, _ = mine(body)
    assert refusal(path).removeprefix(f"prepare.source: {path}()").lstrip(": ") == told


def test_no_target(mine):
    path, _ = mine("return {'a': [1], 'b': [2]}")
    assert refusal(path) == f"{path}(): has no column 'kind' (prepare.target); it has a, b"


def test_a_type_that_cannot_be_an_input(mine):
    path, _ = mine("return {'a': pa.array([[1]]), 'kind': ['x']}")
    assert refusal(path).startswith(f"{path}(): column 'a' is of type list<item: int64>, which can't be an input; ")


def test_a_module_or_function_that_is_not_there(mine):
    told = (
        "prepare.source: nowhere.at_all:rows: can't import nowhere.at_all: ModuleNotFoundError: No module named"
        " 'nowhere'"
    )
    assert refusal("nowhere.at_all:rows") == told
    _, file = mine("return 1")
    assert refusal(f"{file.stem}:other") == f"prepare.source: {file.stem}:other: module {file.stem} has no 'other'"
    assert refusal(f"{file.stem}:np") == f"prepare.source: {file.stem}:np is a module; a function is needed"
    _, file = mine("return (")
    assert "SyntaxError" in refusal(f"{file.stem}:rows")
