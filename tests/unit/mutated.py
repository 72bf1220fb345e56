"""Documents that aren't what they should be."""

import json

WRONG = [None, True, 0, -1, 1.5, 10**400, "", "x", "../../../x", "\x1b[2J", [], {}, [[]], {"a": 1}, ["a"] * 3, "0" * 64]


def places_of(value, before=()):
    """The places of a document's values."""
    yield before
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places_of(child, (*before, key))


def mutated(document, place, how, new):
    """A copy in which the value at a place is another one, is gone, lies deeper, or is there twice."""
    whole = [json.loads(json.dumps(document))]
    owner, place = whole, (0, *place)
    for key in place[:-1]:
        owner = owner[key]
    if how == "replace":
        owner[place[-1]] = new
    elif how == "drop" and len(place) > 1:
        del owner[place[-1]]
    elif how == "wrap":
        owner[place[-1]] = [owner[place[-1]]]
    elif isinstance(owner, list) and len(place) > 1:
        owner.insert(place[-1], owner[place[-1]])
    return whole[0]


BROKEN = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "cut by a byte": lambda data: data[:-1],
    "no UTF-8": lambda data: data.replace(b'"', b"\xff", 1),
    "nested": lambda data: b"[" * 100_000,
    "nested mappings": lambda data: b'{"a":' * 100_000,
    "nested within": lambda data: data[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a list": lambda data: b"[" + data + b"]",
    "twice": lambda data: data + data,
    "a number": lambda data: b"5",
    "a text": lambda data: b'"x"',
    "null": lambda data: b"null",
    "NaN": lambda data: b"NaN",
    "surrogates": lambda data: b'"\\ud800"',
}
