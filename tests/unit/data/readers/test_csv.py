import gzip
import os
import re

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from surefoot.data.readers import csv_text
from tests.unit.data.readers.reading import read, refusal, source_of

ROWS = 300
BODY = "".join(f"{number},{number}.5,x\n" for number in range(ROWS))
MISSING = "; where it stands for a missing value, name it in prepare.missing.values"
COME_FIRST = "with the column names must come first, or name the columns in prepare.csv.header"
SEMICOLON = "its values seem to stand between ';': prepare.csv.delimiter: \";\""
ENCODE = "name its encoding in prepare.csv.encoding"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "raw.csv"


def refused(file, text, **keys):
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    message = refusal(file, **keys)
    assert message.startswith(f"{file}: ")
    return message.removeprefix(f"{file}: ")


def zstd(data):
    return pa.compress(data, "zstd", asbytes=True)


def test_columns_come_in_file_order_with_their_types(file):
    file.write_text("a,kind,b,c,d,e,f\n1,x,2.5,true,2024-02-29,u,\n-3,y,,false,,,\n")
    source = source_of(file)
    types = {
        "a": pa.float64(),
        "kind": pa.string(),
        "b": pa.float64(),
        "c": pa.bool_(),
        "d": pa.date32(),
        "e": pa.string(),
        "f": pa.float64(),
    }
    assert dict(zip(source.schema.names, source.schema.types, strict=True)) == types
    names, rows = read(file)
    assert names == list(types)
    assert [str(value) for value in rows[0].values()] == ["1.0", "x", "2.5", "True", "2024-02-29", "u", "None"]
    assert rows[1] == {
        "a": -3,
        "kind": "y",
        "b": None,
        "c": False,
        "d": None,
        "e": "",
        "f": None,
    }, "a text is passed on as it is written"
    assert "integer" in str(source.schema.field("a").metadata)


@pytest.mark.parametrize(
    "text",
    [
        "a,kind\r\n1,x\r\n",
        "\ufeffa,kind\n1,x\n",
        '"a","kind"\n"1","x"\n',
        "\na,kind\n\n1,x\n\n",
        "a,kind\n1,x",
        "a,kind\r1,x\r",
        '\ufeff"a",kind\n1,x',
    ],
)
def test_the_ways_to_write_csv(file, text):
    file.write_bytes(text.encode())
    assert read(file) == (["a", "kind"], [{"a": 1, "kind": "x"}])


@given(
    st.lists(
        st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.text("xyz é,\"'0\n", min_size=1)), min_size=1
    ),
    st.integers(8, 12),
    st.integers(1, 4),
)
@example(rows=[(0.0, ' "')], bits=8, parts=1)
def test_numbers_and_texts_come_back_as_they_were_written_in_any_blocks_and_parts(tmp_path_factory, rows, bits, parts):
    directory = tmp_path_factory.mktemp("any")
    quoted = ['{!r},"{}"\n'.format(number, text.replace('"', '""')) for number, text in rows]
    for part in range(parts):
        (directory / f"{part}.csv").write_text(
            "".join(
                ["a,kind\n", *quoted[len(quoted) * part // parts : len(quoted) * (part + 1) // parts]]
            ).removesuffix("\n" * (part % 2))
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_text, "BLOCK_BYTES", max(1 << bits, 2 * max(len(line.encode()) for line in quoted)))
        _, found = read(directory, kinds={"a": "numeric"})
    assert [(row["a"], row["kind"]) for row in found] == rows


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, zstd, lambda data: gzip.compress(data[:50]) + gzip.compress(data[50:])]
)
@pytest.mark.parametrize("name", ["raw.csv", "raw.csv.gz", "raw.csv.zst", "RAW.TXT"])
def test_compressed_files_are_known_by_how_they_begin(tmp_path, pack, name):
    (tmp_path / name).write_bytes(pack(f"a,b,kind\n{BODY}".encode()))
    assert [row["a"] for row in read(tmp_path / name)[1]] == list(range(ROWS))


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_a_compressed_file_that_is_cut_short_or_damaged(file, pack):
    data = pack(os.urandom(0) + f"a,b,kind\n{BODY}".encode())
    damaged = "its compressed data is damaged or cut short: "
    assert refused(file, data[: len(data) // 2]).startswith(damaged)
    assert refused(file, data[:-3]).startswith(damaged)
    if pack is gzip.compress:
        assert refused(file, data[:-6] + b"xx" + data[-4:]).startswith(damaged)


def test_a_compressed_part_that_is_cut_short_is_named(tmp_path):
    for part in "abc":
        data = gzip.compress(f"a,b,kind\n{BODY}".encode())
        (tmp_path / f"{part}.csv.gz").write_bytes(data[:-9] if part == "b" else data)
    assert refusal(tmp_path).startswith(f"{tmp_path / 'b.csv.gz'}: its compressed data is damaged or cut short")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252", "utf-8", "UTF8", "utf-8-sig"])
@pytest.mark.parametrize("parts", [1, 3])
def test_another_encoding(tmp_path, encoding, parts):
    for part in range(parts):
        (tmp_path / f"{part}.csv").write_bytes("größe;kind\n1;é\n2;ü".encode(encoding))
    _, rows = read(tmp_path, csv={"encoding": encoding, "delimiter": ";"})
    assert rows == [{"größe": 1, "kind": "é"}, {"größe": 2, "kind": "ü"}] * parts


def test_text_that_is_not_in_the_encoding_named(file):
    file.write_bytes(b"a,kind\n1,x\n2,\xff\n")
    assert (
        refusal(file, csv={"encoding": "ascii"})
        == f"{file}: is not text in ascii (prepare.csv.encoding): ordinal not in range(128)"
    )


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7", "cp037", "iso2022_jp"])
@pytest.mark.parametrize("rows", ["1,é,x\n", "1,é,xy\n"], ids=["odd", "even"])
def test_text_in_utf_8_that_is_called_otherwise(file, encoding, rows):
    file.write_bytes(f"a,b,kind\n{rows}".encode())
    told = refusal(file, csv={"encoding": encoding})
    assert told.startswith(f"{file}: ")
    assert told.endswith("prepare.csv.encoding: utf-8")
    assert "\n" not in told


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_mark_says_more_than_the_params(file, mark, encoding):
    file.write_bytes("a,kind\n1,é\n2,ü\n".encode(mark))
    assert read(file, csv={"encoding": encoding})[1] == [{"a": 1, "kind": "é"}, {"a": 2, "kind": "ü"}]


def test_names_by_param_where_no_row_has_them(file):
    file.write_text("1,2,x\n3,4,y\n")
    header = {"header": ["a", "b", "kind"]}
    assert read(file, csv=header)[1] == [{"a": 1, "b": 2, "kind": "x"}, {"a": 3, "b": 4, "kind": "y"}]
    assert source_of(file, csv=header).where(1) == f"{file}: row 2"
    assert refused(file, "1,2,x\n3,4\n", csv=header) == "row 2: has 2 values; prepare.csv.header has 3"
    assert refused(file, "1,2\n", csv=header) == "row 1: has 2 values; prepare.csv.header has 3"
    assert refused(file, "", csv=header) == "has no rows"
    assert (
        refused(file, "1,2,x\nz,4,y\n", csv=header, kinds={"a": "numeric"})
        == f"row 2, column 'a': 'z' is not a number{MISSING}"
    )


def test_what_is_no_input_is_not_parsed(file):
    file.write_text("a1,a2,b,id,time,kind\n1,x,2,7,9,x\n3,5,4,,9,y\n")
    names, _ = read(file, columns=["a*", "id"], ignore=["i*"], split={"by": "time", "column": "time"})
    assert names == ["a1", "a2", "time", "kind"]


def test_kinds_and_tasks_decide_types(file):
    file.write_text("zip,n,flag,day,kind\n123,7,0,2024-01-01,1\n045,8,1,2024-01-01 12:30:00,2\n")
    source = source_of(
        file, task="regression", kinds={"z*": "category", "n": "numeric", "flag": "boolean", "day": "date"}
    )
    assert source.schema.types == [
        pa.string(),
        pa.float64(),
        pa.bool_(),
        pa.string(),
        pa.float64(),
    ], "dates are read later"
    assert [row["zip"] for batch in source.batches for row in batch.to_pylist()] == ["123", "045"]
    assert source_of(file, task="binary").schema.field("kind").type == pa.string()


def test_a_column_is_of_the_type_that_fits_the_first_block_of_all_parts(tmp_path):
    (tmp_path / "a.csv").write_text("a,kind\n1,x\n")
    (tmp_path / "b.csv").write_text("a,kind\n")
    (tmp_path / "c.csv").write_text("a,kind\n1.5,y")
    assert [row["a"] for row in read(tmp_path)[1]] == [1.0, 1.5]


@pytest.mark.parametrize(
    ("value", "late", "message"),
    [
        ("1.5", "z", f"'z' is not a number{MISSING}; or say what the column holds: prepare.kinds: {{b: category}}"),
        ("1", "z", f"'z' is not a number{MISSING}; or say what the column holds: prepare.kinds: {{b: category}}"),
        ("", "z", f"'z' is not a number{MISSING}; or say what the column holds: prepare.kinds: {{b: category}}"),
        (
            "1",
            "1,5",
            (
                "'1,5' is not a number, but it is 1.5 with prepare.csv.decimal: \",\"; or say what the column holds:"
                " prepare.kinds: {b: category}"
            ),
        ),
        (
            "true",
            "7",
            "'7' is not true or false, as those before it; or say what the column holds: prepare.kinds: {b: category}",
        ),
    ],
)
@pytest.mark.parametrize("parts", [False, True])
def test_a_later_value_of_another_type_is_named(tmp_path, monkeypatch, value, late, message, parts):
    monkeypatch.setattr(csv_text, "BLOCK_BYTES", 256)
    rows, late = f"1,{value},x\n" * 100, f'"{late}"'
    if parts:
        for part in "ac":
            (tmp_path / f"{part}.csv").write_text(f"a,b,kind\n{rows}")
        file, text = tmp_path / "b.csv", f"a,b,kind\n1,{late},x\n"
    else:
        file, text = tmp_path / "raw.csv", f"a,b,kind\n{rows}1,{late},x\n"
    file.write_text(text)
    assert refusal(tmp_path if parts else file) == f"{file}: row {2 if parts else 102}, column 'b': {message}"


def test_kinds_that_do_not_fit(file):
    text = "a,b,kind\n1,maybe,x\n"
    assert refused(file, text, kinds={"b": "boolean"}) == "row 2, column 'b': 'maybe' is not true or false"
    assert (
        refused(file, text, task="regression")
        == f"row 2, column 'kind': 'x' is not a number{MISSING}; or prepare.task: classification, where it is a class"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; a header row with the column names must come first"),
        ("\n\n", "is empty; a header row with the column names must come first"),
        (
            "1,2.5,-3e7\n1,2,3\n",
            f"row 1 holds numbers only, and none is 'kind' (prepare.target); a header row {COME_FIRST}",
        ),
        ("a,kind\n", "has a header but no rows"),
        ("a,kind", "has a header but no rows"),
        ("a,b,a,kind\n1,2,3,x\n", "names column 'a' more than once; rename one, or leave both out (prepare.ignore)"),
        ("a,b,Kind\n1,2,x\n", "has no column 'kind' (prepare.target); it has a, b, Kind"),
        ("a;b;kind\n1;2;x\n", f"has no column 'kind' (prepare.target); it has a;b;kind; {SEMICOLON}"),
        (
            ",".join("abcdefghijkl") + "\n1\n",
            "has no column 'kind' (prepare.target); it has a, b, c, d, e, f, g, h and 4 more",
        ),
        ("kind\nx\n", "has no input column beside 'kind', so nothing to learn from; it has kind"),
        (f"a,{'b' * 200_000},kind\n1,2,x\n", "row 1: not a CSV header: field larger than field limit (131072)"),
        ("a,é,kind\n1,2,x\n".encode("latin-1"), f"byte 2 is not UTF-8 text; save it as such, or {ENCODE}"),
        (
            "a,b,kind\n1,2,x\n".encode("utf-16-le"),
            (
                "has NUL characters among its text, as UTF-16 has without a mark; name its encoding in"
                " prepare.csv.encoding: utf-16-le, say"
            ),
        ),
    ],
)
def test_a_header_that_is_wrong(file, text, message):
    assert refused(file, text) == message


def test_a_column_to_split_by_that_is_missing(file):
    assert (
        refused(file, "a,kind\n1,x\n", split={"by": "group", "column": "who"})
        == "has no column 'who' (prepare.split.column); it has a, kind"
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,2", "has 2 values; the header has 3"),
        ("1,2,x,4", "has 4 values; the header has 3"),
        ("1,two,x", f"column 'b': 'two' is not a number{MISSING}"),
        ("1,0x10,x", f"column 'b': '0x10' is not a number{MISSING}"),
        ("1,1_000,x", "column 'b': '1_000' is not a number, but it is 1,000 with prepare.csv.thousands: \"_\""),
        ("true,2,x", f"column 'a': 'true' is not a number{MISSING}"),
        ('1,"two\nlines",x', f"column 'b': 'two\\nlines' is not a number{MISSING}"),
    ],
)
@pytest.mark.parametrize("block", [256, 4 << 20])
@pytest.mark.parametrize("before", [0, ROWS])
@pytest.mark.parametrize("parts", [False, True])
def test_a_row_that_is_wrong_is_named(tmp_path, monkeypatch, row, message, block, before, parts):
    monkeypatch.setattr(csv_text, "BLOCK_BYTES", block)
    separator = ": " if message.startswith("has") else ", "
    file = tmp_path / "b.csv"
    file.write_text(f"a,b,kind\n{BODY if before else ''}{row}\n1,2,x\n")
    if parts:
        for part in "ac":
            (tmp_path / f"{part}.csv").write_text(f"a,b,kind\n{BODY}")
    assert (
        refusal(tmp_path if parts else file, kinds={"[ab]": "numeric"})
        == f"{file}: row {before + 2}{separator}{message}"
    )


@pytest.mark.parametrize("parts", [False, True])
def test_a_text_that_is_not_utf_8_is_named(tmp_path, parts):
    rows = 10_000
    file = tmp_path / "b.csv"
    file.write_bytes(("a,b,kind\n" + "1,2,x\n" * rows + "1,2,é\n").encode("latin-1"))
    if parts:
        (tmp_path / "a.csv").write_text("a,b,kind\n1,2,x\n")
    assert (
        refusal(tmp_path if parts else file)
        == f"{file}: row {rows + 2}, column 'kind': a text that is not UTF-8; save it as such, or {ENCODE}"
    )


def test_a_number_that_is_not_utf_8_is_named(file):
    told = f"row 3, column 'a': a text that is not UTF-8; save it as such, or {ENCODE}"
    assert refused(file, b"a,kind\n1,x\n\xff,x\n", kinds={"a": "numeric"}) == told


def test_a_quote_that_is_never_closed_is_named(file, tmp_path):
    assert (
        refused(file, f'a,b,kind\n{BODY}1,2,"x\n')
        == f"row {ROWS + 2}: a quote is opened and never closed; the file may be cut short"
    )
    (tmp_path / "zzz.csv").write_text("a,b,kind\n1,2,y\n")
    assert refusal(tmp_path).startswith(f"{file}: row {ROWS + 2}: a quote is opened and never closed")


def test_a_quote_within_a_value_is_one_of_its_characters(file):
    file.write_text('a,kind\n5,5" pipe\n')
    assert read(file)[1] == [{"a": 5, "kind": '5" pipe'}]


def test_a_row_longer_than_a_block_is_refused(file, monkeypatch):
    monkeypatch.setattr(csv_text, "BLOCK_BYTES", 64)
    assert (
        refused(file, f"a,kind\n1,{'x' * 300}\n")
        == "a row is longer than 64 bytes, or a quote is opened and never closed"
    )


def test_parts_whose_columns_differ_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,kind\n1,2,x\n")
    for header, told in [
        ("a,kind", "missing: b"),
        ("a,b,c,kind", "additional: c"),
        ("b,a,kind", "the order differs"),
    ]:
        (tmp_path / "b.csv").write_text(f"{header}\n{re.sub('[a-z]+', '1', header)}\n")
        assert (
            refusal(tmp_path)
            == f"{tmp_path / 'b.csv'}: its columns are {header.replace(',', ', ')}; those of {tmp_path / 'a.csv'} are"
            f" a, b, kind: {told}"
        )
    (tmp_path / "b.csv").write_text("")
    assert refusal(tmp_path) == f"{tmp_path / 'b.csv'}: is empty; a header row with the column names must come first"


def test_parts_may_write_their_headers_differently(tmp_path):
    (tmp_path / "a.csv").write_text("a,kind\n1,x\n")
    (tmp_path / "b.csv").write_text('"a","kind"\r\n2,y\r\n', newline="")
    (tmp_path / "c.csv").write_text("\ufeffa,kind\n3,z")
    (tmp_path / "d.csv").write_text("a,kind")
    (tmp_path / "e.csv.gz").write_bytes(gzip.compress(b"a,kind\n4,u\n"))
    source = source_of(tmp_path)
    assert [row["a"] for batch in source.batches for row in batch.to_pylist()] == [1, 2, 3, 4]
    assert [source.where(row) for row in (1, 3)] == [f"{tmp_path / 'b.csv'}: row 2", f"{tmp_path / 'e.csv.gz'}: row 2"]


def test_parts_without_any_row(tmp_path):
    for part in "ab":
        (tmp_path / f"{part}.csv").write_text("a,kind\n")
    assert refusal(tmp_path) == f"{tmp_path}: has a header but no rows"


def test_a_guessed_column_that_is_not_utf_8_is_named(file):
    assert (
        refused(file, "a,kind\né,x\n".encode("latin-1"))
        == f"row 2, column 'a': a text that is not UTF-8; save it as such, or {ENCODE}"
    )


@pytest.mark.parametrize("delimiter", ['"', "é", "\n"])
def test_a_delimiter_that_cannot_be(file, delimiter):
    file.write_text("a,kind\n1,x\n")
    told = (
        f"params.yaml: prepare.csv.delimiter: {delimiter!r} can't stand between values; it must be an ASCII character"
        " such as , or ;"
    )
    assert refusal(file, csv={"delimiter": delimiter}) == told
