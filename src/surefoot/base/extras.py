"""The extras of pyproject.toml: packages that one use alone takes, and that are installed when it is wanted."""

from pathlib import Path


def install_command(extra: str) -> str:
    """The command that installs an extra, as a message tells it: another one in a clone than where Surefoot itself was
    installed.
    """
    if "site-packages" in Path(__file__).parts:
        return f"pip install 'surefoot[{extra}]'"
    return f".venv/bin/python -m pip install --constraint requirements.txt -e '.[{extra}]'"
