"""docs/params.md: every key of params.yaml with what it takes, its default and its meaning, from the
one typed model.
"""

import json
from collections.abc import Iterator
from typing import Any

from surefoot.params.section_base import Section, inner_section
from surefoot.params.sections import Params

INTRODUCTION = """\
# Every key of params.yaml

Made by `surefoot schema --markdown > docs/params.md`
from `src/surefoot/params/*_section.py`; don't edit it here.

A dotted name is a path through the sections of `params.yaml`: `train.lr` is the key `lr` in the
section `train`. It is also what `dvc exp run -S train.lr=0.1` and MLflow call it; `[]` in it stands
for each of a list. A key that isn't given has its default; one without a default must be given.
`null` means "none". Unknown keys and values of another kind are refused, with the line they are in.
"""
WHAT = {
    "integer": ("whole number", "whole numbers"),
    "number": ("number", "numbers"),
    "string": ("text", "texts"),
    "boolean": ("`true` or `false`", "`true` or `false`"),
    "null": ("`null`", "`null`"),
}
BOUNDS = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}
HUGE = 1e38  # a bound that only keeps infinity out


def json_schema() -> dict[str, Any]:
    """The JSON schema of `params.yaml`, for editors."""
    known: dict[str, Any] = _on_one_line(Params.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **known}


def params_page() -> str:
    """docs/params.md, as Markdown: a table for each section, in the order of params.yaml."""
    schema = json_schema()
    parts = [INTRODUCTION]
    single = [name for name, field in Params.model_fields.items() if not inner_section(field.annotation)]
    parts.append(_table("For all stages: randomness and arithmetic.", "", Params, single, schema))
    for name, field in Params.model_fields.items():
        section = inner_section(field.annotation)
        if section:
            parts.append(_table(_meaning(section), f"{name}.", section, list(section.model_fields), schema))
    return "\n".join(parts)


def _on_one_line(schema: Any) -> Any:
    """A JSON schema whose descriptions, which are docstrings, have no line ends."""
    if isinstance(schema, list):
        return [_on_one_line(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: " ".join(value.split()) if key == "description" and isinstance(value, str) else _on_one_line(value)
        for key, value in schema.items()
    }


def _table(title: str, prefix: str, section: type[Section], names: list[str], schema: dict[str, Any]) -> str:
    heading, _, about = title.partition(": ")
    rows = [["key", "what it takes", "default", "meaning"], ["---"] * 4, *_rows(prefix, section, names, schema)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([f"## {heading}", "", f"{about[0].upper()}{about[1:]}", "", *lines, ""])


def _rows(prefix: str, section: type[Section], names: list[str], schema: dict[str, Any]) -> Iterator[list[str]]:
    described = schema["$defs"][section.__name__] if section is not Params else schema
    for name in names:
        field, takes = section.model_fields[name], described["properties"][name]
        inside = inner_section(field.annotation)
        # A default that is made anew each time isn't in the schema: it is an empty mapping, or a section with defaults
        # of its own.
        default = "(must be given)" if field.is_required() else f"`{_yaml(takes.get('default', {}))}`"
        if not inside:
            yield [f"`{prefix}{name}`", _words(takes), default, takes.get("description", "")]
            continue
        several = "items" in str(takes)  # a list of sections, or one
        meaning = takes.get("description") or _meaning(inside).partition(": ")[2]
        what = (
            ("a section, or a list of them" if "anyOf" in takes else "a list of sections") if several else "a section"
        )
        yield [f"`{prefix}{name}`", what, "`[]`" if default == "`[]`" else "", f"{meaning[0].upper()}{meaning[1:]}"]
        yield from _rows(
            f"{prefix}{name}." if not several or "anyOf" in takes else f"{prefix}{name}[].",
            inside,
            list(inside.model_fields),
            schema,
        )


def _words(takes: dict[str, Any], many: bool = False) -> str:
    """What a value may be, in words, by its JSON schema."""
    if "anyOf" in takes:
        return ", or ".join(_words(option) for option in takes["anyOf"])
    if "const" in takes or "enum" in takes:
        values = [f"`{_yaml(value)}`" for value in takes.get("enum", [takes.get("const")])]
        return " or ".join([", ".join(values[:-1]), values[-1]] if values[1:] else values)
    if takes["type"] == "array":
        if "prefixItems" in takes:
            return f"a list of {len(takes['prefixItems'])} {_words(takes['prefixItems'][0], many=True)}"
        least = ", at least one" if takes.get("minItems") else ""
        return f"a list of {_words(takes['items'], many=True)}{least}"
    if takes["type"] == "object":
        each = takes.get("additionalProperties")
        return f"names, each with {_words(each)}" if isinstance(each, dict) and each else "names with values"
    if takes.get("maxLength") == 1:
        return "one character"
    bounds = [
        f"{said} {_number(takes[bound])}"
        for bound, said in BOUNDS.items()
        if bound in takes and abs(takes[bound]) < HUGE
    ]
    return " ".join([WHAT[takes["type"]][many], " and ".join(bounds)]).strip()


def _number(value: float) -> str:
    return "2^63" if value == 2**63 else f"{value:,.12g}"


def _yaml(value: Any) -> str:
    """A value in the flow style of YAML; JSON is nearly that, quotes apart."""
    if isinstance(value, str) and (value.replace("-", "").replace("_", "").replace("/", "").isalnum() or value == ""):
        return value or '""'
    return json.dumps(value)


def _meaning(section: type[Section]) -> str:
    return " ".join((section.__doc__ or "").split()).rstrip(".") + "."
