"""Imports without garbage collection, which finds nothing in them and takes a fifth of their time."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports(package: str) -> Iterator[None]:
    """A block in which a large package is imported, if it isn't yet."""
    if package in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        collect_from_here()


def collect_from_here() -> None:
    """Collect garbage again, but look no more at what is there already: modules stay."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
