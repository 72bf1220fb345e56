"""The columns of a source: which are inputs, and what each holds."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pyarrow as pa

from surefoot.base.errors import UserError
from surefoot.base.wording import listed_names
from surefoot.data.arrow_numpy import dtype_of, is_text
from surefoot.data.dates import FORMAT, date_type_of
from surefoot.params.prepare_section import PrepareParams

# What a field's metadata says of a column that comes as texts, or as floats where the first values are whole numbers.
KIND, UNIT, INTEGER, ZEROS = b"kind", b"unit", b"integer", b"zeros"


@dataclass(frozen=True)
class Column:
    """An input column: its name, its kind (numeric, boolean, category, date, array), the type it is stored in, and what
    the source's fields say of it.
    """

    name: str
    kind: str
    type: pa.DataType
    integer: bool = False
    array: tuple[str, tuple[int, ...]] | None = None
    """Of an array column: dtype and shape of one."""
    format: str | None = None
    """Of a column of dates that are texts: how they are written (`data.dates`)."""
    unit: str | None = None
    """Of numbers that come as texts: what stands at each, $ or % say."""
    zeros: bool = False
    """Whether some of its numbers are written with a 0 in front, as codes are."""


def choose_columns(schema: pa.Schema, prepare: PrepareParams, source: str) -> list[Column]:
    """The input columns of a source, in its order.

    Raises:
        UserError: a name or pattern that matches no column, a target or split column that isn't there, a column of a
        type that can't be an input, arrays beside another column.
    """
    names = names_in(schema)
    _check_patterns(names, prepare, source)
    chosen = [name for name in schema.names if is_input(name, prepare)]
    if not chosen:
        raise UserError(
            f"{source}: no column is left as an input (prepare.columns, prepare.ignore); it has {listed_names(names)}"
        )
    columns = [column_of(schema.field(name), prepare, source) for name in chosen]
    arrays = [column.name for column in columns if column.kind == "array"]
    if arrays and len(columns) > 1:
        raise UserError(
            f"{source}: column {arrays[0]!r} holds arrays; then it must be the only input (prepare.columns:"
            f" [{arrays[0]}])"
        )
    return columns


def names_in(schema: pa.Schema) -> list[str]:
    """The names of a source's columns.

    A reader may leave out columns that are no inputs; then the schema says which there were.
    """
    return list(json.loads((schema.metadata or {}).get(b"columns", b"null")) or schema.names)


def index_names(schema: pa.Schema) -> list[str]:
    """The columns that a file calls an index, and that its reader has left out."""
    found: list[str] = json.loads((schema.metadata or {}).get(b"index", b"[]"))
    return found


def _check_patterns(names: list[str], prepare: PrepareParams, source: str) -> None:
    for key, name in (("target", prepare.target), ("split.column", prepare.split.column)):
        if name is not None and name not in names:
            raise UserError(f"{source}: has no column {name!r} (prepare.{key}); it has {listed_names(names)}")
    for key, patterns in (
        ("columns", prepare.columns or ()),
        ("ignore", prepare.ignore),
        ("kinds", (*prepare.kinds,)),
        ("dates", (*prepare.dates,)),
    ):
        for pattern in patterns:
            if not any(matches(name, (pattern,)) for name in names):
                raise UserError(f"{source}: prepare.{key}: {pattern!r} matches no column; it has {listed_names(names)}")
    if prepare.target in (prepare.columns or ()):
        raise UserError(
            f"params.yaml: prepare.columns: {prepare.target!r} is the target (prepare.target), so it can't be an input"
        )


def is_input(name: str, prepare: PrepareParams) -> bool:
    """Whether a column is an input."""
    if name == prepare.target or matches(name, prepare.ignore):
        return False
    if name == prepare.split.column:
        return name in (prepare.columns or ())
    return is_chosen(name, prepare)


def is_chosen(name: str, prepare: PrepareParams) -> bool:
    """Whether `prepare.columns` chooses a column; an index only by its name, or a pattern of its own."""
    if prepare.columns is None:
        return not is_index(name)
    return matches(
        name, [pattern for pattern in prepare.columns if pattern == name or not is_index(name) or pattern.strip("*")]
    )


def is_index(name: str) -> bool:
    """Whether that is the name of a column which an index came as: pandas' and R's writers give it none, their readers
    one of these.
    """
    return (
        re.fullmatch(r"\s*|Unnamed: \d+(_level_\d+)?(\.\d+)*|__index_level_\d+__|\.\.\.\d+|row[._]?names", name)
        is not None
    )


def left_out(names: Iterable[str], prepare: PrepareParams, index: Iterable[str] = ()) -> list[str]:
    """The columns that are no inputs only because an index is none; `index` has those that their file calls one."""
    asked = (prepare.target, prepare.split.column)
    named = [pattern for pattern in prepare.columns or () if not pattern or pattern.strip("*")]
    return [
        name
        for name in names
        if (is_index(name) or name in index)
        and not (name in asked or name in named or matches(name, named) or matches(name, prepare.ignore))
    ]


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns is that name, or matches it."""
    # Equal, too: a name may hold brackets, which are a pattern's.
    return any(pattern == name or fnmatchcase(name, pattern) for pattern in patterns)


def kind_told(name: str, prepare: PrepareParams) -> str | None:
    """What `prepare.kinds` says that a column holds; a format in `prepare.dates` says it, too."""
    return told_of_column(name, prepare.kinds) or ("date" if format_told(name, prepare) else None)


def format_told(name: str, prepare: PrepareParams) -> str | None:
    """How `prepare.dates` says that a column's dates are written."""
    return told_of_column(name, prepare.dates)


def told_of_column(name: str, of_columns: Mapping[str, str]) -> str | None:
    """What a key of params.yaml that says something by column says of one: by its name, else by the first pattern that
    matches.
    """
    return of_columns.get(name) or next(
        (told for pattern, told in of_columns.items() if fnmatchcase(name, pattern)), None
    )


def column_of(field: pa.Field, prepare: PrepareParams, source: str) -> Column:
    """What a column holds: by `prepare.kinds`, else by its type."""
    name, type_ = field.name, field.type
    if pa.types.is_fixed_size_list(type_):
        return _array_column(field, source)
    said = field.metadata or {}
    kind = kind_told(name, prepare) or said.get(KIND, b"").decode() or kind_of_type(type_)
    if kind is None:
        why = "is empty" if pa.types.is_null(type_) else f"has type {type_}, which can't be an input"
        raise UserError(
            f"{source}: column {name!r} {why}; leave it out (prepare.ignore)"
            + (", or say what it holds (prepare.kinds)" * pa.types.is_null(type_))
        )
    stored = {"numeric": pa.float64(), "boolean": pa.bool_(), "category": pa.int32(), "date": date_type_of(type_)}[kind]
    if not (pa.types.is_null(type_) or _can_become(type_, kind)):
        raise UserError(f"{source}: column {name!r} has type {type_}, which can't be a {kind} (prepare.kinds)")
    form = said.get(FORMAT, b"").decode() or None
    return Column(
        name,
        kind,
        stored,
        integer=pa.types.is_integer(type_) or INTEGER in said,
        format=form if kind == "date" else None,
        unit=told_unit(field) if kind == "numeric" else None,
        zeros=kind == "numeric" and not kind_told(name, prepare) and ZEROS in said,
    )


def told_unit(field: pa.Field) -> str | None:
    """What stands at the numbers of a column of texts, as its reader has found."""
    return (field.metadata or {}).get(UNIT, b"").decode() or None


def kind_of_type(type_: pa.DataType) -> str | None:
    """The kind that a type is of by itself; None: it can't be an input."""
    tests = {
        "numeric": (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
        "boolean": (pa.types.is_boolean,),
        "category": (is_text, pa.types.is_dictionary),
        "date": (pa.types.is_date, pa.types.is_timestamp, pa.types.is_time),
    }
    return next((kind for kind, ours in tests.items() if any(test(type_) for test in ours)), None)


def _can_become(type_: pa.DataType, kind: str) -> bool:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    own = kind_of_type(type_)
    return (
        own is not None
        and own
        in {
            "numeric": ("numeric", "boolean", "category"),
            "boolean": ("boolean", "numeric", "category"),
            "category": ("category", "numeric", "boolean", "date"),
            "date": ("date", "category"),
        }[kind]
    )


def _array_column(field: pa.Field, source: str) -> Column:
    value = field.type.value_type
    if pa.types.is_uint8(value) or pa.types.is_float32(value) or pa.types.is_float64(value):
        stored = value
    elif pa.types.is_integer(value):
        stored = pa.int64()
    else:
        raise UserError(f"{source}: arrays of {value} can't be inputs; numbers are needed")
    dtype = dtype_of(stored).name
    shape = tuple(json.loads((field.metadata or {}).get(b"shape", b"null")) or [field.type.list_size])
    return Column(field.name, "array", pa.binary(field.type.list_size * stored.bit_width // 8), array=(dtype, shape))
