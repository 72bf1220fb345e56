"""Edits of a YAML text in place: what isn't named stays as it is, comments and layout included.

Each takes a text and nodes of it (`base.yaml12.yaml_nodes`), and returns the new text, of which nodes are read anew.
"""

import textwrap
from typing import Any

from yaml import MappingNode, Node, ScalarNode, SequenceNode


def node_at(top: Any, *keys: str) -> Any:
    """What stands under keys in a mapping; None where nothing does."""
    for key in keys:
        pair = _pair(top, key)
        top = pair and pair[1]
    return top


def with_item(text: str, node: SequenceNode, item: str) -> str:
    """With another item, as YAML, in a list: first in one of lines, as a comment may follow the last."""
    if node.flow_style:
        at = node.value[-1].end_mark.index if node.value else text.index("[", node.start_mark.index) + 1
        return f"{text[:at]}{', ' if node.value else ''}{item}{text[at:]}"
    at = text.rindex("-", 0, node.value[0].start_mark.index)
    return f"{text[:at]}- {item}\n{' ' * (at - text.rfind(chr(10), 0, at) - 1)}{text[at:]}"


def without_item(text: str, node: SequenceNode, number: int) -> str:
    """Without an item of a list; of one of lines with its line."""
    items = node.value
    if not node.flow_style:
        start = text.rindex("-", 0, items[number].start_mark.index)
        return text[: _line_start(text, start)] + text[_line_end(text, items[number].end_mark.index) :]
    return _without_part(text, [(each, each) for each in items], number)


def with_value(text: str, node: Node, value: str) -> str:
    """With another value, as YAML, in the place of a scalar; also of a key."""
    start, end = node.start_mark.index, node.end_mark.index
    return f"{text[:start]}{' ' * (start == end)}{value}{text[end:]}"


def with_first(text: str, node: MappingNode, lines: str) -> str:
    """With another key, `key: value`, before all others of a mapping; it may have lines of comments before it."""
    if node.flow_style:
        at = text.index("{", node.start_mark.index) + 1  # after an anchor
        return f"{text[:at]}{lines.splitlines()[-1]}{', ' if node.value else ''}{text[at:]}"
    first = node.value[0][0].start_mark
    return f"{text[: first.index]}{_indented(lines, first.column)}\n{' ' * first.column}{text[first.index :]}"


def with_last(text: str, node: MappingNode, lines: str) -> str:
    """With another key after all others of a mapping that has some."""
    if node.flow_style:
        at = node.value[-1][1].end_mark.index
        return f"{text[:at]}, {lines.splitlines()[-1]}{text[at:]}"
    column, at = node.value[0][0].start_mark.column, _line_end(text, _end(node))
    line_break = "" if text[:at].endswith("\n") else "\n"
    return f"{text[:at]}{line_break}{' ' * column}{_indented(lines, column)}\n{text[at:]}"


def with_before(text: str, node: MappingNode, key: str, lines: str) -> str:
    """With another key before one of a mapping, and before the comments above that."""
    pair = _pair(node, key)
    if node.flow_style or pair is None:
        return with_last(text, node, lines)
    column, at = pair[0].start_mark.column, _start_with_comments(text, pair[0])
    return f"{text[:at]}{' ' * column}{_indented(lines, column)}\n{text[at:]}"


def lines_of_key(text: str, node: MappingNode, key: str) -> str:
    """A key with its value and the comments above it, as lines that begin at the margin."""
    pair = _pair(node, key)
    if node.flow_style:
        return text[pair[0].start_mark.index : pair[1].end_mark.index]
    return textwrap.dedent(text[_start_with_comments(text, pair[0]) : _line_end(text, _end(pair[1]))]).rstrip("\n")


def without_key(text: str, node: MappingNode, key: str) -> str:
    """Without a key of a mapping, its value and the comments above it."""
    pair = _pair(node, key)
    if node.flow_style:
        return _without_part(text, node.value, node.value.index(pair))
    return text[: _start_with_comments(text, pair[0])] + text[_line_end(text, _end(pair[1])) :]


def _pair(node: Any, key: str) -> Any:
    pairs = node.value if isinstance(node, MappingNode) else []
    return next((pair for pair in pairs if pair[0].value == key), None)


def _without_part(text: str, parts: Any, number: int) -> str:
    """Without one of what commas part."""
    if number + 1 < len(parts):
        return text[: parts[number][0].start_mark.index] + text[parts[number + 1][0].start_mark.index :]
    start = parts[number - 1][1].end_mark.index if number else parts[number][0].start_mark.index
    return text[:start] + text[parts[number][1].end_mark.index :]


def _end(node: Any) -> int:
    """Where a node ends: one of lines says that only after the comments that follow it."""
    if isinstance(node, ScalarNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last if isinstance(node, SequenceNode) else last[1])


def _start_with_comments(text: str, key: Node) -> int:
    start, column = _line_start(text, key.start_mark.index), key.start_mark.column
    while start:
        before = _line_start(text, start - 1)
        if not text[before:start].startswith(f"{' ' * column}#"):
            break
        start = before
    return start


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _line_end(text: str, at: int) -> int:
    """After the line's end; a node that ends at the beginning of a line ended with the one before."""
    return at if text[at - 1 : at] == "\n" else (text.find("\n", at) + 1 or len(text))


def _indented(lines: str, column: int) -> str:
    """All but the first line."""
    first, *others = lines.splitlines()
    return "\n".join([first, *(f"{' ' * column}{line}" if line else "" for line in others)])
