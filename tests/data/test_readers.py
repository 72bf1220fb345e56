import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.data import readers
from surefoot.data.readers import read_csv
from surefoot.errors import UserError

ROWS = 300
BODY = "".join(f"{number},{number}.5,x\n" for number in range(ROWS))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "raw.csv"


def read(file, target="kind"):
    inputs, batches = read_csv(file, target)
    return inputs, [row for batch in batches for row in batch.to_pylist()]


def refused(file, text, target="kind"):
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as refusal:
        read(file, target)
    message = str(refusal.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    return message.removeprefix(f"{file}: ")


def test_columns_come_in_file_order_with_their_types(file):
    file.write_text("a,kind,b\n1,x,2.5\n-3e2,,y,4\n".replace(",,", ","))
    inputs, rows = read(file)
    assert inputs == ["a", "b"]
    assert rows == [{"a": 1.0, "kind": "x", "b": 2.5}, {"a": -300.0, "kind": "y", "b": 4.0}]


@pytest.mark.parametrize("text", ["a,kind\r\n1,x\r\n", "\ufeffa,kind\n1,x\n", '"a","kind"\n"1","x"\n', "\na,kind\n\n1,x\n\n", "a,kind\n1,x"])
def test_the_ways_to_write_csv(file, text):
    file.write_bytes(text.encode())
    assert read(file) == (["a"], [{"a": 1.0, "kind": "x"}])


@given(st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.text("xyz é,\"'0", min_size=1)), min_size=1), st.integers(8, 12))
def test_numbers_and_texts_come_back_as_they_were_written_in_any_blocks(tmp_path_factory, rows, bits):
    file = tmp_path_factory.getbasetemp() / "any.csv"
    quoted = ['{!r},"{}"\n'.format(number, text.replace('"', '""')) for number, text in rows]
    file.write_text("".join(["a,kind\n", *quoted]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "BLOCK_BYTES", max(1 << bits, 2 * max(len(line.encode()) for line in quoted)))
        _, found = read(file)
    assert [(row["a"], row["kind"]) for row in found] == rows


def test_a_file_that_is_not_there(file):
    with pytest.raises(UserError, match=r"there is no such file; prepare\.source must name a CSV file"):
        read(file)


def test_a_directory(file):
    file.mkdir()
    with pytest.raises(UserError, match=r"is a directory; prepare\.source must be a CSV file"):
        read(file)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(file):
    file.write_text("a,kind\n1,x\n")
    file.chmod(0)
    with pytest.raises(UserError, match="can't be read: Permission denied"):
        read(file)


def test_a_file_that_cannot_be_opened(file):
    file.symlink_to(file)  # for ever
    with pytest.raises(UserError, match="can't be read: Too many levels of symbolic links"):
        read(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; a header row with the column names must come first"),
        ("\n\n", "is empty; a header row with the column names must come first"),
        ("1,2.5,-3e7\n1,2,3\n", "row 1 holds numbers only; a header row with the column names must come first"),
        ("a,kind\n", "has a header but no rows"),
        ("a,kind", "has a header but no rows"),
        ("a,b,a,kind\n1,2,3,x\n", "the header names column 'a' more than once"),
        ("a,b,Kind\n1,2,x\n", "has no column 'kind' (prepare.target); it has a, b, Kind"),
        ("a;b;kind\n1;2;x\n", "has no column 'kind' (prepare.target); it has a;b;kind"),
        (",".join("abcdefghijkl") + "\n1\n", "has no column 'kind' (prepare.target); it has a, b, c, d, e, f, g, h and 4 more"),
        ("kind\nx\n", "has no column but 'kind', so nothing to learn from"),
        (f"a,{'b' * 200_000},kind\n1,2,x\n", "row 1: not a CSV header: field larger than field limit (131072)"),
        ("a,é,kind\n1,2,x\n".encode("latin-1"), "byte 2 is not UTF-8 text; prepare.source must be a CSV file in UTF-8"),
        ("a,b,kind\n1,2,x\n".encode("utf-16"), "byte 0 is not UTF-8 text; prepare.source must be a CSV file in UTF-8"),
    ],
)
def test_a_header_that_is_wrong(file, text, message):
    assert refused(file, text) == message


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,2", "has 2 values; the header has 3"),
        ("1,2,x,4", "has 4 values; the header has 3"),
        ("1,two,x", "column 'b': 'two' is not a number"),
        ("1,0x10,x", "column 'b': '0x10' is not a number"),
        ("1,1_000,x", "column 'b': '1_000' is not a number"),
        ("true,2,x", "column 'a': 'true' is not a number"),
        ('1,"two\nlines",x', "column 'b': 'two\\nlines' is not a number"),
    ],
)
@pytest.mark.parametrize("block", [256, 4 << 20])
@pytest.mark.parametrize("before", [0, ROWS])
def test_a_row_that_is_wrong_is_named(file, monkeypatch, row, message, block, before):
    monkeypatch.setattr(readers, "BLOCK_BYTES", block)
    separator = ": " if message.startswith("has") else ", "
    assert refused(file, f"a,b,kind\n{BODY if before else ''}{row}\n1,2,x\n") == f"row {before + 2}{separator}{message}"


def test_a_text_that_is_not_utf_8_is_named(file):
    # Far enough from the header, which is read by itself.
    rows = 10_000
    assert refused(file, ("a,b,kind\n" + "1,2,x\n" * rows + "1,2,é\n").encode("latin-1")) == f"row {rows + 2}, column 'kind': a text that is not UTF-8"
