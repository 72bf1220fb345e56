"""All that is printed goes through here.

What comes from elsewhere, such as a name, a path or a server's answer, is shown as text: it commands no terminal.
"""

import os
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import IO, Any, TextIO

LONGEST = 1000  # characters of a line
CELL = 60  # of a table's cell
COLOURS = {"error": "\033[1;31m", "warning": "\033[1;33m"}
PLAIN = "\033[0m"
# Python calls these printable, though there is nothing to see: fillers, and marks that choose a variant of the
# character before.
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
KEPT = "\n\t"  # of what a library prints


def one_line(text: object, longest: int = LONGEST) -> str:
    r"""A text as it can be shown on one line: what isn't to be seen is spelt as in Python (`\x1b`, `\n`, `\u202e`), the
    middle of a long one is left out.
    """
    whole = str(text)
    # No more is spelt than can be shown.
    shown = _spell(whole if len(whole) <= 2 * longest else whole[:longest] + whole[-longest:])
    if len(whole) <= 2 * longest and len(shown) <= longest:
        return shown
    between = f" ...({len(whole):,} characters)... " if longest >= 100 else "..."
    end = (longest - len(between)) // 3
    return f"{shown[: longest - len(between) - end]}{between}{shown[-end:]}"


def print_lines(*lines: object, kind: str = "", error: bool = False, longest: int = LONGEST) -> None:
    """Print lines, each as `one_line` shows it: a line's end within one is shown as text, so it can't pass for a line
    of ours.

    Args:
        lines: what is said.
        kind: `error`, `warning` or `note`: put before the first line, which goes to standard error; in colour on a
            terminal, unless NO_COLOR is set.
        error: print to standard error.
        longest: characters of a line that are shown.
    """
    stream = _unwrapped(sys.stderr if kind or error else sys.stdout)
    text = "\n".join(one_line(line, longest) for line in lines)
    coloured = (
        kind in COLOURS and is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )
    before = f"{COLOURS[kind]}{kind}:{PLAIN} " if coloured else f"{kind}: " if kind else ""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print((before + text).encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def print_error(*lines: object) -> None:
    """Print `error: line`, and further lines, to standard error."""
    print_lines(*lines, kind="error")


def warn(*lines: object) -> None:
    """Print `warning: line`, and further lines, to standard error."""
    print_lines(*lines, kind="warning")


def table_lines(rows: Sequence[Sequence[object]], right: Collection[int] = (), widest: int = CELL) -> list[str]:
    """Rows as lines, their columns one below the other.

    Args:
        rows: of as many cells each.
        right: the numbers of columns that end one below the other.
        widest: characters of a cell that are shown.
    """
    cells = [[one_line(cell, widest) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in cells
    )
    return ["  ".join(line).rstrip() for line in lines]


def first_few(texts: Iterable[str], most: int = 8) -> str:
    """The first few texts, and how many more there are."""
    every = list(texts)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream, standard output or standard error, goes to a terminal."""
    return bool(_unwrapped(stream).isatty())


def progress_bar(iterable: Iterable[Any] | None = None, *, name: object, **settings: Any) -> Any:
    """A progress bar (tqdm) of this name, over an iterable where one is given; it is drawn on a terminal alone."""
    from tqdm import tqdm

    return tqdm(iterable, desc=one_line(name, CELL), file=_unwrapped(sys.stderr), disable=None, **settings)


def pass_on(pipe: IO[bytes], error: bool = False) -> None:
    """Print what another process prints, line by line, until it ends."""
    for line in iter(lambda: pipe.readline(LONGEST), b""):
        with suppress(BrokenPipeError):  # nobody reads any more: the other process isn't to notice
            print_lines(line.decode(errors="backslashreplace").rstrip("\r\n"), error=error)
    pipe.close()


def protect() -> None:
    """Let what libraries print, warn and log, and tracebacks, reach the terminal as text, too: without colours, as to a
    file.
    """
    os.environ.setdefault("PYTHON_COLORS", "0")
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _Shown):
            setattr(sys, name, _Shown(stream))


class _Shown:
    """A text stream in which all but the ends of lines is spelt."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        self.stream.write(_spell(text, KEPT).encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _unwrapped(stream: Any) -> Any:
    return stream.stream if isinstance(stream, _Shown) else stream


def _spell(text: str, kept: str = "") -> str:
    if text.isprintable() and (text.isascii() or not INVISIBLE.search(text)):
        return text
    return "".join(
        (
            character
            if character in kept or (character.isprintable() and not INVISIBLE.match(character))
            else character.encode("unicode_escape").decode()
        )
        for character in text
    )
