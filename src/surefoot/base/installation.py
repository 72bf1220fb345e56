"""Whether Surefoot was installed, or is run from a clone's src, and how things are called accordingly."""

import json
import shlex
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path

from surefoot.base import paths
from surefoot.base.wording import without_password


def is_installed() -> bool:
    """Whether Surefoot was installed as a package; in a clone its source lies in src."""
    return Path(__file__).parents[2].name != "src"


def package_folder() -> Path | None:
    """Where the installed package lies; None in a clone."""
    return Path(__file__).parents[1] if is_installed() else None


def installed_version() -> str | None:
    """The version that is installed; None where the source is run without that."""
    try:
        return version("surefoot")
    except PackageNotFoundError:
        return None


def installed_from() -> str | None:
    """The address that Surefoot was installed from, as pip notes it (PEP 610); None where it came from an index."""
    try:
        url = json.loads(distribution("surefoot").read_text("direct_url.json") or "{}").get("url")
    except (PackageNotFoundError, ValueError, AttributeError):
        return None
    return without_password(url) if isinstance(url, str) else None


def included_network(name: str) -> str:
    """The import path of a network that comes along, `table:table` say."""
    return f"surefoot.networks.{name}" if is_installed() else f"networks.{name}"


def source_name(module: str) -> str:
    """What a module of ours is called where it is shown: by its file in a clone, which one can open."""
    return module if is_installed() else f"src/{module.replace('.', '/')}.py"


def command(target: str) -> str:
    """The command of a target of the Makefile, which a package doesn't have."""
    return {"repro": "dvc repro", "ui": "surefoot ui"}[target] if is_installed() else f"make {target}"


def script(name: str) -> str:
    """A command of this environment, as it must be typed where that isn't activated."""
    there = Path(sys.executable).parent / name if is_installed() else Path(".venv/bin", name)
    return shlex.quote(str(paths.from_here(there)))


def pip_install() -> str:
    """`pip install` as it must be typed here for this environment; one that uv has made may have no pip."""
    python = shlex.quote(str(paths.from_here(Path(sys.executable))))
    return f"{python} -m pip install" if find_spec("pip") else f"uv pip install --python {python}"


def install_version(version: str) -> str:
    """How to get another version of Surefoot. Where this one isn't from an index, one may have none of that name, or
    somebody else's.
    """
    place = installed_from()
    return f"install {version} from where that came, {place}" if place else f"`{pip_install()} surefoot=={version}`"


def install_command(extra: str) -> str:
    """The command that installs an extra of pyproject.toml: packages that one use alone takes."""
    if is_installed():
        return f"{pip_install()} 'surefoot[{extra}]'"
    return f".venv/bin/python -m pip install --constraint requirements.txt -e '.[{extra}]'"
