"""YAML 1.2, read by PyYAML so that each value means what it means to DVC, whose parser is ruamel.yaml.

PyYAML by itself reads YAML 1.1, where `1e-3` is text and `no` is false. What the two might read in
two ways is refused, and so is what could take long: deep nesting, and aliases that repeat much.
"""

import math
import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

LARGEST = 128 << 10  # values that a text with aliases may stand for
DEEPEST = 100  # lists and mappings in one another: PyYAML's recursion in C knows no limit, and crashes
TOO_DEEP = f"nested too deep to read: at most {DEEPEST} lists and mappings may lie in one another"

TAG = "tag:yaml.org,2002:"
MERGE, VALUE = f"{TAG}merge", f"{TAG}value"

# Control characters, line breaks of YAML 1.1 that are none in 1.2, and byte order marks.
FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
# What may follow | or >: not a first line of spaces, which ruamel.yaml takes for the indent.
BLOCK = re.compile(r"[|>][-+0-9]*(?: +#[^\r\n]*| *)(?:(?:\r\n?|\n)(?! +(?:[\r\n]|\Z))|\Z)")
COMMENT = re.compile(r"(?:^|(?<=[ \t\r\n]))#[^\r\n]*")
SPACES = ("", *" \t\r\n")
OPENING_FLOW = (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken)
CLOSING_FLOW = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken)
OPENING = (yaml.BlockSequenceStartToken, yaml.BlockMappingStartToken, *OPENING_FLOW)
CLOSING = (yaml.BlockEndToken, *CLOSING_FLOW)


class UnreadableYaml(Exception):
    """What is wrong with a text, and as far as known its line, from 1 on, and its dotted key."""

    def __init__(self, wrong: str, line: int | None = None, key: str = "") -> None:
        super().__init__(wrong)
        self.wrong, self.line, self.key = wrong, line, key

    def told(self, path: object) -> str:
        """`file:line: key: what is wrong`."""
        place = f"{path}:{self.line}" if self.line else str(path)
        return ": ".join(part for part in (place, self.key, self.wrong) if part)


class _Loader(yaml.CSafeLoader):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # none of YAML 1.1's


# Scalars without quotes, by the characters that they may begin with: YAML 1.2's, as ruamel.yaml has them. A number may
# have underscores, a date is a date, and `.5e1`, whose exponent has no sign, is text.
_FLOAT = r"""(?x: [-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)? | [-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
    | [-+]?\.[0-9_]+(?:[eE][-+][0-9]+)? | [-+]?\.(?:inf|Inf|INF) | \.(?:nan|NaN|NAN) )$"""
_TIMESTAMP = r"""(?x: [0-9]{4}-[0-9]{2}-[0-9]{2} | [0-9]{4}-[0-9][0-9]?-[0-9][0-9]? (?:[Tt]|[ \t]+)
    [0-9][0-9]?:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)? (?:[ \t]*(?:Z|[-+][0-9][0-9]?(?::[0-9]{2})?))? )$"""
for _name, _first, _pattern in (
    ("bool", "tTfF", "(?:true|True|TRUE|false|False|FALSE)$"),
    ("float", "-+0123456789.", _FLOAT),
    ("int", "-+0123456789", "[-+]?(?:0b[01_]+|0o[0-7_]+|[0-9_]+|0x[0-9a-fA-F_]+)$"),
    ("merge", "<", "<<$"),
    ("null", ("~", "n", "N", ""), "(?:~|null|Null|NULL|)$"),
    ("timestamp", "0123456789", _TIMESTAMP),
    ("value", "=", "=$"),
):
    _Loader.add_implicit_resolver(TAG + _name, re.compile(_pattern), list(_first))


def _bool(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _int(text: str) -> int:
    digits = text.replace("_", "")
    return int(digits, {"0b": 2, "0o": 8, "0x": 16}.get(digits.lstrip("-+")[:2], 10))


def _float(text: str) -> float:
    digits = text.replace("_", "").lower()
    return {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}.get(digits) or float(digits)


def _timestamp(text: str) -> date:
    day, _, time = text[:10], text[10:11], text[11:]
    if not re.fullmatch(r"[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[-+][0-9]{2}:[0-9]{2})?", time or "00:00:00"):
        raise ValueError  # ruamel.yaml rounds more digits, and PyYAML cuts them off
    return datetime.fromisoformat(f"{day}T{time}") if time else date.fromisoformat(day)


SCALARS: dict[str, Callable[[str], Any]] = {
    f"{TAG}null": lambda _: None,
    f"{TAG}bool": _bool,
    f"{TAG}int": _int,
    f"{TAG}float": _float,
    f"{TAG}str": str,
    f"{TAG}timestamp": _timestamp,
}


def from_yaml(text: str) -> Any:
    """The value of a YAML document; None of an empty one.

    Raises:
        UnreadableYaml: it isn't one, or has what isn't read here.
    """
    node = yaml_nodes(text)
    return None if node is None else _construct(node)


def from_yaml_with_lines(text: str) -> tuple[Any, dict[str, int]]:
    """The value of a YAML document, and the line, from 1 on, of each dotted key of mappings in mappings.

    Raises:
        UnreadableYaml: as `from_yaml`; or a dotted key is given twice, also as `a: {b: 1}` and `a.b: 1`.
    """
    node = yaml_nodes(text)
    lines: dict[str, int] = {}
    value = None if node is None else _construct(node)
    _collect_lines(node, "", lines)
    return value, lines


def yaml_nodes(text: str) -> Node | None:
    """The nodes of a YAML document, which know their places behind a byte order mark; None of an empty one.

    Raises:
        UnreadableYaml: it isn't one, or is nested too deep, or has what could be read in two ways.
    """
    text = text.removeprefix("\ufeff")
    if found := FORBIDDEN.search(text):
        line = len(re.findall("\r\n?|\n", text[: found.start()])) + 1
        raise UnreadableYaml(f"not valid YAML: the character U+{ord(found[0]):04X} can't stand there as it is", line)
    try:
        has_aliases = _look_over(text)
        node = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        shown = text[mark.index : mark.index + 20].partition("\n")[0].strip(" \r")
        wrong = ", ".join([*filter(None, (error.context, error.problem)), *([f"at {shown!r}"] if shown else [])])
        raise UnreadableYaml(f"not valid YAML: {wrong}", mark.line + 1) from None
    if has_aliases:
        values, depth = _extent(node, {})
        if depth > DEEPEST:
            raise UnreadableYaml(TOO_DEEP)
        if values > LARGEST:
            raise UnreadableYaml(
                f"its aliases (*name) hold themselves, or repeat so much that more than {LARGEST:,} values come of them"
            )
    return node


def _construct(node: Node, key: str = "") -> Any:
    """The value of a node, whose own dotted key is `key`.

    Raises:
        UnreadableYaml: a value isn't what its tag says, a tag isn't read here, a key is given twice.
    """
    line = node.start_mark.line + 1
    if isinstance(node, SequenceNode) and node.tag == f"{TAG}seq":
        return [_construct(item, _dotted(key, number)) for number, item in enumerate(node.value)]
    if isinstance(node, MappingNode) and node.tag == f"{TAG}map":
        return _mapping(node, key)
    if node.tag in (MERGE, VALUE):
        raise UnreadableYaml(f"{node.value} isn't text in YAML; put it in quotes", line, key)
    if not isinstance(node, ScalarNode) or node.tag not in SCALARS:
        raise UnreadableYaml(f"the tag {node.tag.replace(TAG, '!!')} isn't read here", line, key)
    try:
        return SCALARS[node.tag](node.value)
    except (ValueError, LookupError):
        wrong = f"not valid YAML: {node.value[:40]!r} can't be read as {node.tag.removeprefix(TAG)}"
        raise UnreadableYaml(wrong, line, key) from None


def _look_over(text: str) -> bool:
    """Whether a text has aliases, token by token; refuses what ruamel.yaml might read in another way.

    Deep nesting too, as nothing recurses yet. Between two tokens are spaces, line ends and comments.
    """
    anchors: set[str] = set()
    has_aliases, depth, flows = False, 0, ""  # `flows`: the open { and [
    before: Any = None
    for token in yaml.scan(text, _Loader):
        depth += isinstance(token, OPENING) - isinstance(token, CLOSING)
        line, wrong = token.start_mark.line + 1, _ambiguous(token, text, flows)
        between = text[before.end_mark.index : token.start_mark.index] if before else ""
        if depth > DEEPEST:
            wrong = TOO_DEEP
        elif not flows and "\t" in between and "\t" in COMMENT.sub("", between):
            line, wrong = before.end_mark.line + 1, "a tab can't stand between values; use spaces"
        elif isinstance(token, yaml.AnchorToken) and token.value in anchors:
            wrong = f"&{token.value} is given twice; use two names"
        elif isinstance(before, yaml.DocumentEndToken) and not isinstance(token, yaml.StreamEndToken):
            wrong = "nothing may follow the end of the document"
        elif isinstance(token, yaml.ScalarToken) and token.style in ("|", ">") and not depth:
            wrong = f"text after {token.style} needs a key"
        if wrong:
            raise UnreadableYaml(wrong, line)
        anchors |= {token.value} if isinstance(token, yaml.AnchorToken) else set()
        has_aliases = has_aliases or isinstance(token, yaml.AliasToken)
        if isinstance(token, OPENING_FLOW):
            flows += text[token.start_mark.index]
        elif isinstance(token, CLOSING_FLOW):
            flows = flows[:-1]
        before = token
    return has_aliases


def _ambiguous(token: yaml.Token, text: str, flows: str) -> str | None:
    """What is wrong with a token that the two parsers take in two ways."""
    start, end = token.start_mark.index, token.end_mark.index
    written, after = text[start:end], text[end : end + 1]
    if isinstance(token, yaml.ScalarToken) and token.plain and "\t" in written:
        return "a tab can't stand in text without quotes"
    if isinstance(token, yaml.ScalarToken) and token.style in ("|", ">") and not BLOCK.match(text, start):
        return f"after {token.style} text begins in the next line, which isn't one of spaces"
    if isinstance(token, yaml.AnchorToken | yaml.AliasToken) and after not in (*SPACES, *",[]{}"):
        return f"there must be a space after {written}"
    if isinstance(token, yaml.ValueToken) and flows.endswith("[") and after not in SPACES:
        return "there must be a space after : within []"
    if isinstance(token, yaml.KeyToken) and flows and written:
        return "a key within {} and [] is written without ?"
    if isinstance(token, yaml.TagToken) and token.value == (None, "!"):
        return "the tag ! isn't read here"
    if isinstance(token, yaml.DirectiveToken) and token.value != (1, 2):
        return "of directives (%...) only %YAML 1.2 is read here"
    return None


def _extent(node: Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values a node stands for, aliases followed, and how deep: a few lines can be billions."""
    if id(node) not in known:
        known[id(node)] = LARGEST, 0  # until it is known: for one that holds itself, which never ends
        inner = [] if isinstance(node, ScalarNode) else node.value
        parts = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
        extents = [_extent(part, known) for part in parts]
        known[id(node)] = 1 + sum(values for values, _ in extents), 1 + max((depth for _, depth in extents), default=0)
    return known[id(node)]


def _mapping(node: MappingNode, key: str) -> dict[Any, Any]:
    merged: dict[Any, Any] = {}
    own: dict[Any, Any] = {}
    at: dict[Any, int] = {}
    for name, value in node.value:
        line, is_merge = name.start_mark.line + 1, name.tag == MERGE
        if not isinstance(name, ScalarNode):
            raise UnreadableYaml("a list or a mapping can't be a key here", line, key)
        dotted = _dotted(key, name.value)
        given = name.value if is_merge or name.tag == VALUE else _construct(name, dotted)
        if (is_merge, given) in at:
            raise UnreadableYaml(f"given twice, first in line {at[is_merge, given]}; keep one", line, dotted)
        at[is_merge, given] = line
        if is_merge:
            merged = _merged(value, dotted)
        else:
            own[given] = _construct(value, dotted)
    return merged | own


def _merged(node: Node, key: str) -> dict[Any, Any]:
    """What `<<` brings in from a mapping, or from a list of them, where the first that has a key counts."""
    found: dict[Any, Any] = {}
    for source in reversed(node.value) if isinstance(node, SequenceNode) else [node]:
        if not isinstance(source, MappingNode):
            raise UnreadableYaml("<< takes a mapping, or a list of mappings", source.start_mark.line + 1, key)
        found |= _construct(source, key)
    return found


def _collect_lines(node: Node | None, prefix: str, found: dict[str, int]) -> None:
    for name, value in node.value if isinstance(node, MappingNode) else ():
        dotted, line = _dotted(prefix, name.value), name.start_mark.line + 1
        if dotted in found:
            raise UnreadableYaml(f"given twice, first in line {found[dotted]}; keep one", line, dotted)
        found[dotted] = line
        _collect_lines(value, dotted, found)


def _dotted(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)
