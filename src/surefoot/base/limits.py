"""What to say when the system has no more of something, such as memory, open files or disk: with the limit that was
reached.
"""

import errno
import os
import resource
from collections.abc import Iterator

UNLIMITED = resource.RLIM_INFINITY
LEAST_MEMORY, LEAST_FILES = 512 << 20, 32
LIMITS = {
    "memory": ((resource.RLIMIT_AS, "v", 1024), (resource.RLIMIT_DATA, "d", 1024)),
    "threads": ((resource.RLIMIT_AS, "v", 1024), (resource.RLIMIT_DATA, "d", 1024), (resource.RLIMIT_NPROC, "u", 1)),
    "open files": ((resource.RLIMIT_NOFILE, "n", 1),),
    "the size of a file": ((resource.RLIMIT_FSIZE, "f", 1024),),
}
"""What may run out; by which limits, the letters under which the shell's `ulimit` has these, and what it counts in."""
NUMBERS = {errno.ENOMEM: "memory", errno.EMFILE: "open files", errno.EFBIG: "the size of a file"}
# What libraries say where they raise errors of their own: torch, pyarrow, the loader of shared objects, Python's
# threads.
TEXTS = {
    "an't allocate memory": "memory",
    "annot allocate memory": "memory",
    "not enough memory": "memory",
    "bad_alloc": "memory",
    "failed to map segment": "memory",
    "can't start new thread": "threads",
    "Resource temporarily unavailable": "threads",
    "Too many open files": "open files",
    "File too large": "the size of a file",
}
NO_TEMPORARY = "No usable temporary directory"


def explain(error: BaseException) -> str | None:
    """A line for an error that the system is behind, such as no memory or a file that can't be read; None for any
    other.
    """
    what = next(filter(None, map(_ran_out, _chain(error))), None)
    named = error.filename if isinstance(error, OSError) else None
    place = f"{named}: " if isinstance(named, str | os.PathLike) else ""
    if what:  # a file that couldn't be opened as too many were is no matter
        return (place if what == "the size of a file" else "") + shortage(what)
    return place + system_reason(error) if isinstance(error, OSError) and error.errno else None


def system_reason(error: OSError) -> str:
    """Why a file can't be read or written: the limit that was reached, or what the system says."""
    what = _ran_out(error)
    if what:
        return shortage(what)
    if error.errno == errno.EIO:
        return f"{os.strerror(errno.EIO)}: the disk fails"
    said = (error.strerror or str(error)).splitlines()[0]
    # Arrow's own text is a long one.
    return os.strerror(error.errno) if error.errno and "Detail: [errno" in said else said


def memory_limit() -> int | None:
    """The bytes that this process may have, where they are limited."""
    return min(
        (limit for number, _, _ in LIMITS["memory"] if (limit := resource.getrlimit(number)[0]) != UNLIMITED),
        default=None,
    )


def too_little() -> str | None:
    """What this process may have so little of that no stage gets through its imports."""
    files, memory_bytes = resource.getrlimit(resource.RLIMIT_NOFILE)[0], memory_limit()
    if memory_bytes is not None and memory_bytes < LEAST_MEMORY:
        return "memory"
    return "open files" if files != UNLIMITED and files < LEAST_FILES else None


def shortage(what: str) -> str:
    """That something ran out, and which limit it is that was reached."""
    for number, letter, unit in LIMITS[what]:
        limit = resource.getrlimit(number)[0]
        if limit != UNLIMITED:
            return (
                f"the limit on {'memory' if unit > 1 and what == 'threads' else what} is reached: `ulimit -{letter}` is"
                f" {limit // unit}; raise it"
            )
    return {"memory": "the machine has no more memory", "threads": "the system starts no more threads"}.get(
        what, f"the limit on {what} is reached"
    )


def _ran_out(error: BaseException) -> str | None:
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, OSError) and error.errno in NUMBERS:
        return NUMBERS[error.errno]
    # Python tries to write to each temporary directory, and hides why it can't.
    if isinstance(error, OSError) and NO_TEMPORARY in str(error):
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        return "the size of a file" if limit != UNLIMITED else None
    if isinstance(error, (OSError, RuntimeError, ImportError)):
        return next((what for text, what in TEXTS.items() if text in str(error)), None)
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
