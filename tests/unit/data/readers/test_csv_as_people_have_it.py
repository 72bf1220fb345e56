"""CSV files as people have them: what just works, and what is refused with its cause."""

import io
import re

import pandas as pd
import pytest
import yaml

from surefoot.data.readers.open_source import copied_files
from tests.unit.data.readers.reading import read, refusal, source_of


def body(row, rows=60):
    return "".join(row(number, "xy"[number % 2]) + "\n" for number in range(rows))


PLAIN = body(lambda n, kind: f"{n}.5,{n % 7},{kind}")
LABELLED = body(lambda n, kind: f'"{n + 1}",{n}.5,{n % 7},{kind}')
TRAILING = PLAIN.replace("\n", ",\n")


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (',a,b,kind\n"' + LABELLED[1:], {}),  # pandas' to_csv
        ('"","a","b","kind"\n' + LABELLED, {}),  # R's write.csv
        ("a,b,kind\n" + LABELLED, {}),  # R's write.table
        ("Unnamed: 0,a,b,kind\n" + LABELLED, {}),  # what pandas read without a name, written again
        ("Unnamed: 0.1,a,b,kind\n" + LABELLED, {}),
        ("rownames,a,b,kind\n" + LABELLED, {}),  # as R's data sets are shipped today
        ("row.names,a,b,kind\n" + LABELLED, {}),
        ("a,b,kind,\n" + TRAILING, {}),
        ("a,b,kind\n" + TRAILING, {}),
        ("a,b,kind,\n" + PLAIN, {}),
        ("a,a2,a2,b,kind\n" + body(lambda n, kind: f"{n}.5,1,2,{n % 7},{kind}"), {"ignore": ["a2"]}),
        ("u,v,w\n" + PLAIN, {"csv": {"names": ["a", "b", "kind"]}}),
        (PLAIN, {"csv": {"header": False, "names": ["a", "b", "kind"]}}),
        (PLAIN, {"csv": {"header": ["a", "b", "kind"]}}),
        (TRAILING, {"csv": {"header": ["a", "b", "kind"]}}),
        ("'a','b','kind'\n" + body(lambda n, kind: f"'{n}.5','{n % 7}','{kind}'"), {"csv": {"quote": "'"}}),
    ],
)
def test_what_just_works(tmp_path, text, keys):
    (tmp_path / "raw.csv").write_text(text)
    names, rows = read(tmp_path / "raw.csv", **keys)
    assert names == ["a", "b", "kind"]
    assert rows[3] == {"a": 3.5, "b": 3, "kind": "y"}
    assert len(rows) == 60


def test_an_index_that_is_named_is_read(tmp_path):
    (tmp_path / "raw.csv").write_text(',a,b,kind\n"' + LABELLED[1:])
    assert read(tmp_path / "raw.csv", columns=["", "a"])[0] == ["", "a", "kind"]
    assert read(tmp_path / "raw.csv", columns=["*"])[0] == ["a", "b", "kind"]
    (tmp_path / "raw.csv").write_text('Unnamed: 0,a,b,kind\n"' + LABELLED[1:])
    assert read(tmp_path / "raw.csv", columns=["Unn*", "a"])[0] == ["Unnamed: 0", "a", "kind"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_an_encoding_is_known_by_its_mark(tmp_path, encoding):
    (tmp_path / "raw.csv").write_bytes(("größe,kind\n" + body(lambda n, kind: f"{n}.5,ü{kind}")).encode(encoding))
    names, rows = read(tmp_path / "raw.csv")
    assert (names, rows[1]) == (["größe", "kind"], {"größe": 1.5, "kind": "üy"})


@pytest.mark.parametrize("name", ["raw.tsv", "RAW.TSV", "raw.tsv.gz"])
def test_tsv_is_read_by_tab(tmp_path, name):
    (tmp_path / name).write_text(f"a\tb\tkind\n{PLAIN}".replace(",", "\t"))
    assert read(tmp_path / name)[1][3] == {"a": 3.5, "b": 3, "kind": "y"}
    assert "between tabs" in refusal(tmp_path / name, csv={"delimiter": ","})


def test_a_header_of_numbers_is_a_header(tmp_path):
    (tmp_path / "raw.csv").write_text("2000,2001,2002\n1,2,3\n4,5,7\n")
    assert read(tmp_path / "raw.csv", target="2002", task="regression")[1][0] == {"2000": 1, "2001": 2, "2002": 3}


@pytest.mark.parametrize(
    ("text", "keys", "told"),
    [
        (
            "a;b;kind\n" + PLAIN.replace(",", ";"),
            {},
            """it has a;b;kind; its values seem to stand between ';': prepare.csv.delimiter: ";\"""",
        ),
        ("a;b;kind\n" + PLAIN.replace(",", ";").replace(".", ","), {}, "between ';': prepare.csv.delimiter: \";\""),
        ("a|b|kind\n" + PLAIN.replace(",", "|"), {}, "between '|': prepare.csv.delimiter: \"|\""),
        ("a~b~kind\n" + PLAIN.replace(",", "~"), {}, "between '~': prepare.csv.delimiter: \"~\""),
        ("a\1b\1kind\n" + PLAIN.replace(",", "\1"), {}, r"between " "'\\x01'" r': prepare.csv.delimiter: "\x01"'),
        (
            "a::b::kind\n" + PLAIN.replace(",", "::"),
            {},
            "between '::', which is more than one character; save it with one",
        ),
        (
            '"a,b,kind"\n' + body(lambda n, kind: f'"{n}.5,{n % 7},{kind}"'),
            {},
            "each row stands in quotes as a whole; save it without these",
        ),
        (
            "a,b,kind\n" + body(lambda n, kind: f"{n},'r,{n % 7}','{kind}'"),
            {},
            """its values stand in single quotes: prepare.csv.quote: "'\"""",
        ),
        (
            "a,b,kind\n" + body(lambda n, kind: f"{n},'r{',' * (n % 2)}','{kind}'"),
            {},
            """its values stand in single quotes: prepare.csv.quote: "'\"""",
        ),
        ("a\tb\tkind\n" + PLAIN.replace(",", "\t"), {}, 'between tabs: prepare.csv.delimiter: "\\t"'),
        ("a  b kind\n" + PLAIN.replace(",", "   "), {}, "between blanks, as many as fit; save it with one delimiter"),
        (
            PLAIN.replace(",", ";"),
            {"csv": {"header": ["a", "b", "kind"]}},
            "row 1: has 1 value; prepare.csv.header has 3; its values seem to stand between ';'",
        ),
        (
            "sep=;\na;b;kind\n" + PLAIN.replace(",", ";"),
            {},
            'row 1 names the delimiter, as Excel writes it; remove the row, and set prepare.csv.delimiter: ";"',
        ),
        (
            "# by X\na,b,kind\n" + PLAIN,
            {},
            "'# by X' looks like a comment, of which a CSV table has none: remove such lines",
        ),
        (
            "a,b,kind\n" + PLAIN + "# 60 rows\n",
            {},
            "row 62: has 1 value; the header has 3; '# 60 rows' looks like a comment",
        ),
        ("a,b,kind\n1,2,x\n#,\n" + PLAIN, {}, "row 3: has 2 values; the header has 3; '#,' looks like a comment"),
        (
            "Report\n\na,b,kind\n" + PLAIN,
            {},
            "row 1, taken for the header, has one value, and row 2 has 3: the header must be the first row",
        ),
        (
            "'a','b','kind'\n" + body(lambda n, kind: f"'{n}, 5','{n % 7}','{kind}'"),
            {},
            """its values stand in single quotes: prepare.csv.quote: "'\"""",
        ),
        (
            "a,b,kind\n" + body(lambda n, kind: f"{n},'{'uvw'[n % 3]}',{kind}"),
            {},
            "column 'b': its values stand in single quotes: prepare.csv.quote",
        ),
        ("a, b, kind\n" + PLAIN, {}, "it has a, ' b', ' kind'; blanks belong to a name: prepare.target: ' kind'"),
        (
            'a, b, kind\n1, "u, v", x\n',
            {"target": " kind"},
            "row 2: a blank stands between a delimiter and a quote, which then is none; remove such blanks",
        ),
        (
            'a,b,kind\n1," ""u\nv",x\n\n2, "u",x\n',
            {},
            "row 3: a blank stands between a delimiter and a quote, which then is none; remove such blanks",
        ),
        (
            "a,b,kind\n" + PLAIN,
            {"csv": {"header": ["a", "b", "kind"]}},
            "row 1 holds the names that params.yaml gives; prepare.csv.header: true says that",
        ),
        (
            "u,v,w\n" + PLAIN,
            {"csv": {"header": ["a", "b", "kind"]}},
            "row 1, column 'a': 'u' is not a number, as almost all of the others are (or is row 1 a h",
        ),
        ("u,v,w,z\n" + PLAIN, {"csv": {"names": ["a", "b", "kind"]}}, "row 1: has 4 values; prepare.csv.names has 3"),
        ("PK\x03\x04...", {}, "is a ZIP archive, or an Excel workbook; save it as CSV"),
        ("<!DOCTYPE html>\n<html></html>\n", {}, "it looks like a web page, or XML"),
        ("a,a,b,kind\n" + body(lambda n, kind: f"1,2,{n},{kind}"), {}, "names column 'a' more than once"),
        (
            ",a,b,kind\n" + body(lambda n, kind: f'"{n}",,,{kind}').replace(",,,", ","),
            {},
            "has 2 values; the header has 4",
        ),
    ],
)
def test_what_is_refused_says_the_cause(tmp_path, text, keys, told):
    (tmp_path / "raw.csv").write_text(text)
    message = refusal(tmp_path / "raw.csv", **keys)
    assert told in message
    assert message.startswith(f"{tmp_path / 'raw.csv'}: ")


@pytest.mark.parametrize(
    ("values", "keys", "told"),
    [
        (
            ["-", *range(50)],
            {},
            (
                "row 2, column 'a': '-' is not a number, as almost all of the others are\ntexts among its numbers, with"
                " their count: '-' (1): "
            ),
        ),
        (
            [*range(50), "off", ".", "off"],
            {},
            (
                "row 52, column 'a': 'off' is not a number, as almost all of the others are\ntexts among its numbers,"
                " with their "
            ),
        ),
        (
            [*range(50), "1,5"],
            {},
            """row 52, column 'a': '1,5' is not a number, but it is 1.5 with prepare.csv.decimal: ",\"""",
        ),
        (
            [f"{n},5" for n in range(50)],
            {},
            "row 2, column 'a': '0,5' is not a number, but it is 0.5 with prepare.csv.decimal: \",\"; or"
            " prepare.kinds: {a: c",
        ),
        (
            [f"{1000 * n:,}" for n in range(50)],
            {},
            "row 3, column 'a': '1,000' is not a number, but it is 1,000 with prepare.csv.thousands: \",\", or 1 with",
        ),
        (
            [f"{'$€'[n % 2]}{n}" for n in range(50)],
            {},
            "row 3, column 'a': '€1' is a number of another unit than '$0', or one of them has none",
        ),
        (
            [f"({n})" if n % 2 else n for n in range(50)],
            {},
            "row 3, column 'a': '(1)' is not a number, as almost all of the others are; it is a number below",
        ),
        (
            ["$1", *range(50)],
            {},
            (
                "row 2, column 'a': '$1' is a number of another unit than '0', or one of them has none: write all in"
                " one way"
            ),
        ),
        (
            [f"{n}{'%' * (n % 2)}" for n in range(50)],
            {},
            (
                "row 2, column 'a': '0' is a number of another unit than '1%', or one of them has none: write all in"
                " one way"
            ),
        ),
        (
            [f"({n})" if n % 5 == 1 else n for n in range(50)],
            {},
            "row 3, column 'a': '(1)' is not a number, as almost all of the others are; it is a number below",
        ),
        ([f"{n},5" for n in range(50)], {"csv": {"decimal": ",", "thousands": "."}}, None),
        ([f"${1000 * n:,}.00" for n in range(50)], {"csv": {"thousands": ","}}, None),
        ([f"{n}%" for n in range(50)], {}, None),
        (["-", *range(50)], {"kinds": {"a": "category"}}, None),
        ([" ?", "?", "None", "#N/A", "<NA>", " ", "n/a", *range(50)], {}, None),
        (["2", "3", "4", "5more"] * 10, {}, None),
    ],
)
def test_numbers_and_texts_in_one_column(tmp_path, values, keys, told):
    file = tmp_path / "raw.csv"
    pd.DataFrame({"a": values, "kind": "x"}).to_csv(file, index=False)
    if told is None:
        assert [str(row["a"]).removesuffix(".0").strip() for row in read(file, **keys)[1]] == [
            str(value).strip() for value in values
        ]
    else:
        assert told in refusal(file, **keys)


def test_plain_numbers_are_those_of_pandas(tmp_path):
    text = "a,kind\n" + "".join(
        f"{value},x\n" for value in ("1", "-2.5", "+3", ".5", "5.", "1e-3", " 7 ", "NA", "", "1234567890.125")
    )
    (tmp_path / "raw.csv").write_text(text)
    assert source_of(tmp_path / "raw.csv").schema.field("a").metadata[b"kind"] == b"numeric"
    file = tmp_path / "direct.csv"
    file.write_text(text.replace("NA", ""))
    theirs = pd.read_csv(io.StringIO(text))["a"].tolist()
    assert [None if value != value else value for value in theirs] == [row["a"] for row in read(file)[1]]


def test_what_lies_beside_part_files(tmp_path):
    for name in ("1.csv", "train.csv"):
        (tmp_path / name).write_text("a,b,kind\n" + PLAIN)
    (tmp_path / "__MACOSX").mkdir()
    for name in ("_SUCCESS", "~$1.csv", "1.csv~", "1.csv.bak", "README"):
        (tmp_path / name).write_text("no data")
    assert len(read(tmp_path)[1]) == 120
    assert copied_files(str(tmp_path)) == [str(tmp_path / "train.csv")]
    (tmp_path / "test.csv").write_text("a,b\n1,2\n")
    told = "holds splits, test.csv, train.csv, which aren't classes or parts; name each: prepare.test_source: "
    assert told in refusal(tmp_path), "also beside a sample of a submission"


@pytest.mark.parametrize("name", ["a: b", "", "c, d", "{e}", "#f", "1", "yes", "größe g"])
def test_keys_that_an_error_names_are_yaml(tmp_path, name):
    pd.DataFrame({name: ["-", *range(50)], "kind": "x"}).to_csv(tmp_path / "raw.csv", index=False)
    message = refusal(tmp_path / "raw.csv", columns=[name])
    assert yaml.safe_load(re.search(r"prepare.kinds: (.*) where", message)[1]) == {name: "category"}


def test_a_number_to_predict_that_is_a_text(tmp_path):
    (tmp_path / "raw.csv").write_text("a,b,kind\n" + PLAIN)
    assert "'x' is not a number; " in (message := refusal(tmp_path / "raw.csv", task="regression"))
    assert message.endswith("; or prepare.task: classification, where it is a class")
