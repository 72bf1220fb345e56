"""What PyYAML reads here is what ruamel.yaml reads, by which DVC reads; all else is refused."""

import math
import warnings
from datetime import date

import pytest
from dvc.utils.serialize import YAMLFileCorruptedError, dumps_yaml, parse_yaml
from hypothesis import assume, example, given, reject, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from surefoot.base.yaml12 import UnreadableYaml, from_yaml, from_yaml_with_lines, yaml_nodes
from tests.helpers import PROJECT

# --- whatever the text -----------------------------------------------------------------------------

SCALARS = [
    "1e-3",
    "1E3",
    "1e400",
    "no",
    "on",
    "yes",
    "y",
    "0o17",
    "017",
    "-0o7",
    "08",
    "0o8",
    "1_000",
    "-_",
    "0x1F",
    "0X1F",
    "0x_",
]
SCALARS += [
    "0b11",
    "0b_",
    "1:30",
    "1:30.5",
    ".5",
    "5.",
    "._",
    "+1",
    "+.5e+1",
    "-.5e1",
    "1.e5",
    "0.1_2",
    "1_e3",
    "-0.0",
    "-0",
    "9" * 5000,
]
SCALARS += [
    ".inf",
    "+.inf",
    "-.Inf",
    ".INF",
    ".iNF",
    "inf",
    ".nan",
    ".NaN",
    "nan",
    "~",
    "null",
    "Null",
    "nULL",
    "",
    "true",
    "TRUE",
    "tRue",
]
SCALARS += [
    "2020-01-01",
    "2020-02-30",
    "2020-1-1",
    "2020-01-01 10:00:00",
    "2020-01-01T10:00:00.5Z",
    "2020-01-01t10:00:00 +01:00",
]
SCALARS += [
    "2020-01-01 10:00:00.1234567",
    "2020-01-01 1:00:00",
    "0000-01-01",
    "=",
    "<<",
    "1#one",
    "a?b",
    "?a",
    ":a",
    "a:b",
    "a:",
    "-a",
    "é",
    "\U0001f600",
]
TAGS = [
    "",
    "!!str ",
    "!!int ",
    "!!float ",
    "!!bool ",
    "!!null ",
    "!!binary ",
    "!!timestamp ",
    "!!seq ",
    "!!map ",
    "!!set ",
    "!!omap ",
    "!!pairs ",
]
TAGS += [
    "! ",
    "!x ",
    "!<tag:yaml.org,2002:int> ",
    "!!python/name:os.system ",
    "!!python/object/apply:os.system ",
    "!!merge ",
    "!!value ",
    "&a ",
]
STYLES = ["{}", "'{}'", '"{}"', "|\n    {}\n", ">-\n    {}\n", "|2\n     {}\n"]
PLACES = [
    "{}",
    "a: {}",
    "- {}",
    "a:\n- {}",
    "[{}]",
    "[b, {} , c]",
    "{{a: {}}}",
    "{}: 1",
    "{{{}: 1, b: 2}}",
    "? {}\n: 1",
    "a: {} # c",
    "a: [{}]\nb: *a",
]
PIECES = [
    *"abn01_.:,-?[]{}#&*!|>'\"%@`=<~\\/+ \t\n\r\x00\x7f\x85\u2028\ufeffé",
    "  ",
    "\n  ",
    "\n- ",
    ": ",
    "- ",
    "? ",
    "&a ",
    "*a",
    "&b ",
    "*b",
    "<<: ",
]
PIECES += [
    *SCALARS[:12],
    *TAGS,
    "|\n  x\n",
    ">-\n  x\n",
    "\\n",
    "\\ud800",
    "# c\n",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "%YAML 1.1\n",
    "%TAG ! x\n",
    "key: ",
    "a: ",
]
FILES = [(PROJECT / name).read_text() for name in ("params.yaml", "dvc.yaml")]
FILES += [
    'a: &x\n  b: 1\nc:\n  <<: [*x, {d: 2, b: 3}]\n  e: |\n    t\n\n  # c\n  f: >-\n    u\n    v\ng: "q\\n\n  r"\n',
    '{"a":[1,{"b":"c"}],"d":null}\n',
]


def same(ours, theirs) -> bool:
    """Whether two values are equal and of one type, all the way down, keys in one order."""
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, dict):
        return same([list(item) for item in ours.items()], [list(item) for item in theirs.items()])
    return repr(ours) == repr(theirs) if isinstance(ours, float) else ours == theirs


def check(text: str) -> None:
    try:
        ours = from_yaml(text)
    except UnreadableYaml:
        return
    with warnings.catch_warnings(action="ignore"):
        theirs = YAML(typ="safe").load(text)
    assert same(ours, theirs), (text, ours, theirs)


NUMBERS = st.text("0123456789.eE+-_xobX:~infNaN", max_size=8)


@given(
    scalar=st.sampled_from(SCALARS) | NUMBERS | st.text(max_size=8),
    tag=st.just("") | st.sampled_from(TAGS),
    style=st.just("{}") | st.sampled_from(STYLES),
    place=st.sampled_from(PLACES),
)
@settings(max_examples=1000)
def test_a_scalar_means_the_same_wherever_it_stands(tag, style, place, scalar):
    check(place.format(tag + style.format(scalar)))


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.sampled_from(["{}", "[{}]", "{{{}}}", "a: {}"]))
@settings(max_examples=1000)
@example("['x':b]", "{}")
@example("[!!str :1]", "{}")
@example("[? ]]", "{}")
@example("&b: 1", "{}")
@example("a: &x 1\n*x: 2", "{}")
@example("!", "{}")
@example("a: b\tc", "{}")
@example("a: 1\t# c", "{}")
@example("0: \t[a]", "{}")
@example("[a\tb]", "{}")
@example(">#[", "{}")
@example("|\t", "{}")
@example("d: |\n \n   t\n", "{}")
@example(">\r#x", "{}")
@example("a\n...\n...\n", "{}")
@example("%YAML 1.1\n---\na: no\n", "{}")
@example("a: 1\x85b: 2", "{}")
@example("{!!str : , ~ }", "{}")
@example("{1: a, true: b}", "{}")
@example("a: &x {b: &y 1}\nc: {<<: *x, <<: *x}\n", "{}")
def test_any_text_means_the_same(text, place):
    check(place.format(text))


@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4), st.sampled_from(["", *PIECES])), min_size=1, max_size=2),
)
@settings(max_examples=300)
def test_whole_files_with_mistakes_mean_the_same(text, edits):
    for place, length, piece in edits:
        at = int(place * len(text))
        text = text[:at] + piece + text[at + length :]
    check(text)


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | st.sampled_from(SCALARS)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXTS | st.dates(date(1000, 1, 1)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS | st.integers(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=5))
@settings(max_examples=150)
def test_what_dvc_writes_is_read(values):
    text = dumps_yaml(values)
    assume(not set(text) & {"\x85", "\u2028", "\u2029", "\ufeff"})
    try:
        theirs = parse_yaml(text, "params.yaml")
    except YAMLFileCorruptedError:
        reject()
    assert same(from_yaml(text) or {}, theirs), text


# --- what must be taken ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (
            "a: 1e-3\nb: no\nc: 017\nd: 0o17\ne: 1_000\nf: 1:30\ng: .5\nh: -.5e1",
            {"a": 0.001, "b": "no", "c": 17, "d": 15, "e": 1000, "f": "1:30", "g": 0.5, "h": "-.5e1"},
        ),
        (
            "[pixel_?, a??b, '[s]ize', http://x/?q=1, a:b, C:\\d]",
            ["pixel_?", "a??b", "[s]ize", "http://x/?q=1", "a:b", "C:\\d"],
        ),
        ('{"a":[1,{"b":"c:d"}],"e":null}', {"a": [1, {"b": "c:d"}], "e": None}),
        ("[1,\t2,\n\t3\t] # a\ttab", [1, 2, 3]),
        ("# a\ttab\na: 'b\tc' # d\te\n", {"a": "b\tc"}),
        ("%YAML 1.2\n---\na: no\n...\n# end\n", {"a": "no"}),
        ("\ufeffa: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
        (
            "a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\ne: {<<: [{b: 5}, *x]}\n",
            {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}, "e": {"b": 5, "c": 2}},
        ),
        ("a: !!str 1\nb: !!int '0x1F'\nc: !!float 1\nd: !!null x", {"a": "1", "b": 31, "c": 1.0, "d": None}),
        ("1: a\nnull: b\n2020-01-01: c\n1.5: d", {1: "a", None: "b", date(2020, 1, 1): "c", 1.5: "d"}),
        ("a:\n- |+ # c\n  t\n\n- >-\n  u\n  v\n", {"a": ["t\n\n", "u v"]}),
        ("", None),
        ("# nothing\n", None),
    ],
)
def test_what_people_write_is_read(text, value):
    assert from_yaml(text) == value
    assert same(from_yaml(text), YAML(typ="safe").load(text))


def test_as_deep_as_is_said_is_read():
    text = "[" * 100 + "]" * 100
    assert from_yaml(text) == YAML(typ="safe").load(text)


# --- what is refused, and where --------------------------------------------------------------------


def refused(text: str) -> str:
    with pytest.raises(UnreadableYaml) as refusal:
        from_yaml(text)
    return refusal.value.told("f")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: {c: [1, !!int x]}", "f:2: b.c.1: not valid YAML: 'x' can't be read as int"),
        ("a: 2020-02-30", "f:1: a: not valid YAML: '2020-02-30' can't be read as timestamp"),
        ("a: !!python/name:os.system x", "f:1: a: the tag !!python/name:os.system isn't read here"),
        ("a:\n  !!set {b, c}", "f:2: a: the tag !!set isn't read here"),
        ("a: !!binary aGVsbG8=", "f:1: a: the tag !!binary isn't read here"),
        ("a: !x 1", "f:1: a: the tag !x isn't read here"),
        ("a: =", "f:1: a: = isn't text in YAML; put it in quotes"),
        ("a: 1\nb: 2\n'a': 3", "f:3: a: given twice, first in line 1; keep one"),
        ("a: [{b: 1,\n b: 2}]", "f:2: a.0.b: given twice, first in line 1; keep one"),
        ("a: {1: x, 0x1: y}", "f:1: a.0x1: given twice, first in line 1; keep one"),
        ("a: {<<: {}, <<: {}}", "f:1: a.<<: given twice, first in line 1; keep one"),
        ("a: {<<: 1}", "f:1: a.<<: << takes a mapping, or a list of mappings"),
        ("? [a]\n: 1", "f:1: a list or a mapping can't be a key here"),
        ("a: &x 1\nb: &x 2\nc: *x", "f:2: &x is given twice; use two names"),
        ("a: 1\n\x07", "f:2: not valid YAML: the character U+0007 can't stand there as it is"),
        ("a: 1\r\n\rb: '\u2028'", "f:3: not valid YAML: the character U+2028 can't stand there as it is"),
        ("a: 1\t# x\nb: 2", "f:1: a tab can't stand between values; use spaces"),
        (
            "a:\n\tb: 1",
            "f:2: not valid YAML: while scanning for the next token, found character that cannot start any token, at"
            " '\\tb: 1'",
        ),
        ("a: b\tc", "f:1: a tab can't stand in text without quotes"),
        ("%YAML 1.1\n---\na: no", "f:1: of directives (%...) only %YAML 1.2 is read here"),
        ("%TAG ! tag:yaml.org,2002:\n---\na: !int 1", "f:1: of directives (%...) only %YAML 1.2 is read here"),
        ("a: *b", "f:1: not valid YAML: found undefined alias, at '*b'"),
        (
            "a: 1\n---\nb: 2",
            "f:2: not valid YAML: expected a single document in the stream, but found another document, at '---'",
        ),
        (
            "a: [1\nb: 2",
            "f:2: not valid YAML: while parsing a flow sequence, did not find expected ',' or ']', at ': 2'",
        ),
    ],
)
def test_what_is_wrong_is_told_by_line_and_key(text, said):
    assert refused(text) == said


@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, "{a: " * 50_000, "- " * 50_000, "? " * 50_000, "\n".join(" " * n + "a:" for n in range(300))],
)
def test_deep_nesting_is_refused_before_it_crashes(text):
    assert "nested too deep" in refused(text)


def test_what_is_deep_by_its_aliases_is_refused():
    text = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}]\n" for n in range(1000))
    assert "nested too deep" in refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "a: &a {b: {c: [*a]}}",
        "a: &a {<<: *a}",
        "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [" + ", ".join([f"*a{n}"] * 9) + "]\n" for n in range(60)),
    ],
    ids=lambda text: text[:12],
)
def test_aliases_that_are_without_end_or_stand_for_very_many_values_are_refused(text):
    assert "aliases" in refused(text)


# --- lines and places ------------------------------------------------------------------------------


def test_lines_are_those_of_keys_in_mappings():
    text = "a: 1 # x\n\nb:\n  c: {d: 1,\n    e: [{f: 1}]}\n  g: 2\n"
    value, lines = from_yaml_with_lines(text)
    assert value == {"a": 1, "b": {"c": {"d": 1, "e": [{"f": 1}]}, "g": 2}}
    assert lines == {"a": 1, "b": 3, "b.c": 4, "b.c.d": 4, "b.c.e": 5, "b.g": 6}
    assert from_yaml_with_lines("") == (None, {})


def test_two_keys_of_one_dotted_name_have_no_line():
    text = "a: {b: 1}\n'a.b': 2\n"
    assert from_yaml(text) == {"a": {"b": 1}, "a.b": 2}
    with pytest.raises(UnreadableYaml) as refusal:
        from_yaml_with_lines(text)
    assert refusal.value.told("f") == "f:2: a.b: given twice, first in line 1; keep one"


def test_nodes_know_their_places():
    text = "é: \U0001f600 # x\na:\n  'b': c\n"
    key, value = yaml_nodes(text).value[1]
    assert text[key.start_mark.index :].startswith("a:")
    assert text[value.start_mark.index :].startswith("'b'")


def test_numbers_that_are_none_of_json_are_read():
    assert from_yaml("[.inf, -.inf]") == [math.inf, -math.inf]
    assert math.isnan(from_yaml(".nan"))
