"""`python -m surefoot.notebook`: what is imported takes a moment, in which Ctrl-C may come already."""

from surefoot.base import errors


def _run() -> None:
    from surefoot.notebook.run_in_scratch import main

    main()


errors.begin_process()
errors.run_process(_run)
