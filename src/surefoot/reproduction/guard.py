"""Tidies up behind `surefoot verify`, however that ends, kill -9 included: a process of its own, which imports nothing
else.

    python guard.py DIRECTORY

Standard input says `+GROUP` of a process group that was started and `-GROUP` of one that ended. When it closes, as it
does when the process at its other end is gone, the groups that are left are killed and the directory is deleted.
"""

import os
import shutil
import signal
import sys
import time
from contextlib import suppress


def main() -> None:
    """Wait, then tidy up."""
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line.startswith("+") else groups.discard)(int(line[1:]))
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    for _ in range(50):  # what was killed may take a moment to be gone, and write until then
        shutil.rmtree(sys.argv[1], ignore_errors=True)
        if not os.path.exists(sys.argv[1]):  # noqa: PTH110 - pathlib would be an import
            break
        time.sleep(0.1)


if __name__ == "__main__":
    main()
