"""Whether Surefoot was installed, or is run from a clone's src, and how things are called accordingly."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def is_installed() -> bool:
    """Whether Surefoot was installed as a package; in a clone its source lies in src."""
    return Path(__file__).parents[2].name != "src"


def installed_version() -> str | None:
    """The version that is installed; None where the source is run without that."""
    try:
        return version("surefoot")
    except PackageNotFoundError:
        return None


def included_network(name: str) -> str:
    """The import path of a network that comes along, `table:table` say."""
    return f"surefoot.networks.{name}" if is_installed() else f"networks.{name}"


def install_command(extra: str) -> str:
    """The command that installs an extra of pyproject.toml: packages that one use alone takes."""
    if is_installed():
        return f"pip install 'surefoot[{extra}]'"
    return f".venv/bin/python -m pip install --constraint requirements.txt -e '.[{extra}]'"
