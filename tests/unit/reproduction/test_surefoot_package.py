"""How Surefoot was installed, by what pip notes of it."""

import json
import tarfile
import zipfile

import pytest

from surefoot.base import installation
from surefoot.base.documents import Malformed, parse_document
from surefoot.base.errors import CannotSay
from surefoot.reproduction import surefoot_package
from surefoot.reproduction.scratch import Scratch
from surefoot.reproduction.surefoot_package import SurefootPackage

RECORD = """\
../../../bin/surefoot,sha256=aa,230
surefoot-1.2.3.dist-info/RECORD,,
surefoot/__init__.py,sha256=bb,40
surefoot/__pycache__/__init__.cpython-311.pyc,,
surefoot/cli.py,sha256=cc,400
"""
COMMIT = "1" * 40


@pytest.mark.parametrize(
    ("source", "requirement", "title"),
    [
        (None, "surefoot==1.2.3", "Surefoot 1.2.3"),
        (
            {"url": "https://me:secret@example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}},
            f"git+https://example.org/x.git@{COMMIT}",
            f"Surefoot 1.2.3 of https://example.org/x.git at {COMMIT}",
        ),
        (
            {"url": "file:///home/me/my%20dist/surefoot-1.2.3.whl", "archive_info": {}},
            "surefoot==1.2.3",
            "Surefoot 1.2.3 of surefoot-1.2.3.whl",
        ),
        ({"url": "file:///home/me/surefoot/", "dir_info": {}}, "surefoot==1.2.3", "Surefoot 1.2.3 of surefoot"),
        ({"vcs_info": 1}, "surefoot==1.2.3", "Surefoot 1.2.3"),
    ],
)
def test_where_it_is_from(source, requirement, title):
    """No path of the machine and no password is recorded."""
    found = surefoot_package._described("1.2.3", RECORD, None if source is None else json.dumps(source))
    assert (found.requirement, found.title) == (requirement, title)
    text = json.dumps(found.plain())
    assert "home" not in text and "secret" not in text
    assert parse_document(SurefootPackage, text.encode()) == found


def test_the_same_code_is_the_same_whoever_installed_it():
    one = surefoot_package._described("1.2.3", RECORD, None)
    again = "".join(line for line in reversed(RECORD.splitlines(keepends=True)) if "pyc" not in line)
    assert one.is_same(surefoot_package._described("1.2.3", again.replace("=aa", "=xx"), '{"url": "file:///x"}'))
    assert not one.is_same(surefoot_package._described("1.2.3", RECORD.replace("=cc", "=dd"), None))
    assert not one.is_same(surefoot_package._described("1.2.4", RECORD, None))
    assert one.is_same(SurefootPackage(version="1.2.3")), "as far as it is known"
    assert not one.is_same(None)


@pytest.mark.parametrize(
    "said",
    [
        {"version": "--editable ."},
        {"version": "1; x"},
        {"version": "1", "git": "ext::sh -c x", "commit": COMMIT},
        {"version": "1", "git": "https://x.org/a b", "commit": COMMIT},
        {"version": "1", "git": "https://x.org/a", "commit": "main"},
    ],
)
def test_nothing_else_reaches_pip(said):
    with pytest.raises(Malformed):
        parse_document(SurefootPackage, json.dumps(said).encode())


def test_a_clone_records_nothing():
    assert surefoot_package.running_package() is None


def test_one_of_the_same_version_takes_the_place_of_the_one_here(tmp_path, monkeypatch):
    """As of another commit; and of an index only a wheel is taken, as a source distribution runs code to be built."""
    version = installation.installed_version()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    (tmp_path / "setup.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with tarfile.open(tmp_path / f"surefoot-{version}.tar.gz", "w:gz") as file:
        file.add(tmp_path / "setup.py", f"surefoot-{version}/setup.py")
    with Scratch() as scratch:
        environment = surefoot_package.environment_like_this(scratch)
        with pytest.raises(CannotSay, match="can't be installed here"):
            surefoot_package.install_package(scratch, environment, SurefootPackage(version=version))
        assert not (tmp_path / "ran").exists()
        info = f"surefoot-{version}.dist-info"
        with zipfile.ZipFile(tmp_path / f"surefoot-{version}-py3-none-any.whl", "w") as file:
            file.writestr("surefoot/__init__.py", "other = True\n")
            file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: surefoot\nVersion: {version}\n")
            file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            file.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in file.namelist()))
        assert surefoot_package.install_package(scratch, environment, SurefootPackage(version=version)) == []
        assert surefoot_package.package_in(environment).version == version
        (module,) = environment.glob("lib/python3*/site-packages/surefoot/__init__.py")
        assert module.read_text() == "other = True\n"
