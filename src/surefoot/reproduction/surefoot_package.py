"""Which Surefoot made a run, where it is a package and no part of the run's commit: recorded, and installed again."""

import json
import os
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import Field

from surefoot.base import digests
from surefoot.base.documents import Digest, Document
from surefoot.base.errors import CannotSay
from surefoot.base.installation import is_installed
from surefoot.base.wording import without_password
from surefoot.reproduction.scratch import Scratch

ARTIFACT = "environment/surefoot.json"


class SurefootPackage(Document):
    """`environment/surefoot.json` of a run."""

    version: Annotated[str, Field(pattern=r"^\d[0-9A-Za-z.+!]{0,99}$")]
    code: Digest | None = None
    """The digest of its source; None where pip has noted none."""
    git: Annotated[str, Field(pattern=r"^(https?|ssh|git|file)://[^\s#;]+$")] | None = None
    """The repository that it was installed from."""
    commit: Annotated[str, Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")] | None = None
    file: Annotated[str, Field(max_length=300)] | None = None
    """The name of the file or folder that it was installed from."""

    @property
    def requirement(self) -> str:
        """What pip takes."""
        return f"git+{self.git}@{self.commit}" if self.git and self.commit else f"surefoot=={self.version}"

    @property
    def title(self) -> str:
        """Its version, and where it is from."""
        place = f"{self.git} at {self.commit}" if self.git and self.commit else self.file
        return f"Surefoot {self.version}" + (f" of {place}" if place else "")

    def is_same(self, other: "SurefootPackage | None") -> bool:
        """Whether another one is of the same version and code, as far as that is known."""
        if other is None or self.version != other.version:
            return False
        return None in (self.code, other.code) or self.code == other.code


def running_package() -> SurefootPackage | None:
    """The package that runs; None in a clone."""
    try:
        found = distribution("surefoot") if is_installed() else None
    except PackageNotFoundError:  # its files were copied by hand
        return None
    if found is None:
        return None
    return _described(found.version, found.read_text("RECORD"), found.read_text("direct_url.json"))


def package_in(environment: Path) -> SurefootPackage | None:
    """The package in a virtual environment."""
    found = [*(environment / "lib").glob("python3*/site-packages/surefoot-*.dist-info")]
    if not found:
        return None
    (folder,) = found
    files = {name: folder / name for name in ("RECORD", "direct_url.json")}
    texts = [file.read_text(encoding="utf-8") if file.is_file() else None for file in files.values()]
    return _described(folder.name.removesuffix(".dist-info").partition("-")[2], *texts)


def _described(version: str, record: str | None, direct_url: str | None) -> SurefootPackage:
    """By what pip notes of an installation (PEP 376, PEP 610). No path of the machine is in it."""
    lines = sorted(line for line in (record or "").splitlines() if line.startswith("surefoot/") and ".pyc," not in line)
    said = {"version": version} | ({"code": digests.sha256("\n".join(lines).encode())} if lines else {})
    try:
        source = json.loads(direct_url or "{}")
        if "vcs_info" in source:
            said |= {"git": without_password(source["url"]), "commit": source["vcs_info"]["commit_id"]}
        elif source:
            said |= {"file": unquote(Path(urlsplit(source["url"]).path).name)}
        return SurefootPackage(**said)
    except (ValueError, KeyError, TypeError):
        return SurefootPackage(version=version)


def environment_like_this(scratch: Scratch) -> Path:
    """A virtual environment that has the packages of this one, and room for another Surefoot, which goes first.

    Raises:
        CannotSay: there can be none.
    """
    environment = scratch.path / "environment"
    if scratch.run([sys.executable, "-m", "venv", str(environment)], scratch.path, _surroundings()):
        raise CannotSay("a virtual environment can't be made; what Python says is above")
    (site,) = (environment / "lib").glob("python3*/site-packages")
    packages = [place for place in sys.path if place.endswith(("site-packages", "dist-packages"))]
    (site / "packages.pth").write_text("".join(f"{place}\n" for place in packages), encoding="utf-8")
    return environment


def install_package(scratch: Scratch, environment: Path, wanted: SurefootPackage) -> list[str]:
    """Install the Surefoot of a run; returns what speaks against its being that.

    Raises:
        CannotSay: it can't be had.
    """
    pip = [str(environment / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # In place of one of the same version in the packages of here; and of an index nothing whose installation runs code.
    pip += ["--no-deps", "--ignore-installed", *([] if wanted.git else ["--only-binary=:all:"])]
    if scratch.run([*pip, wanted.requirement], scratch.path, _surroundings()):
        raise CannotSay(
            f"it was made by {wanted.title}, which can't be installed here; what pip says is above",
            "install it, or let pip find its wheel (PIP_FIND_LINKS names a folder), then verify again",
        )
    made = package_in(environment)
    other = f"it was made by {wanted.title}, and pip finds other code of that version"
    return [] if wanted.is_same(made) else [other]


def _surroundings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
