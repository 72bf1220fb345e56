"""`python -m tutorial NAME ...` makes the figures of a section; without a name every command of docs/tutorial.md is
run, in a copy, and compared.
"""

import argparse
import sys
from importlib import import_module

from surefoot.base import errors, paths
from tutorial import lab

SECTIONS = ("noise", "parts", "loop", "lr", "batch", "schedules", "optimizers", "order", "bits")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tutorial", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="NAME", help=", ".join(SECTIONS))
    parser.add_argument(
        "--update", action="store_true", help="write what differs into docs/tutorial.md and docs/images/tutorial"
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.sections if name not in SECTIONS]
    if unknown:
        raise errors.UserError(f"there is no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    if not paths.PARAMS.is_file():
        raise errors.UserError(f"there is no {paths.PARAMS} here; run this in the repository's root")
    if not arguments.sections:
        from tutorial import page

        sys.exit(page.check(update=arguments.update))
    lab.pinned(lab.params())
    for name in arguments.sections:
        import_module(f"tutorial.{name}").main()


if __name__ == "__main__":
    errors.run_process(main)
