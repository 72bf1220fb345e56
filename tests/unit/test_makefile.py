"""What the targets install: `make -n` says what it would do."""

import os
import subprocess

import pytest

from tests.helpers import PROJECT


def make(*arguments, **environment):
    """What make prints."""
    ours = ("PIP_", "UV_", "MAKE", "MFLAGS")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        ["make", *arguments], cwd=PROJECT, env=plain | environment, capture_output=True, text=True, check=True
    ).stdout


def would_run(target, **environment):
    """The commands of a target where nothing is installed."""
    return make("--dry-run", "--what-if", "pyproject.toml", target, **environment)


def installs(commands):
    return [
        line.split("--constraint requirements.txt --editable ") for line in commands.splitlines() if " install " in line
    ]


def path_with(tmp_path, script):
    """A PATH that begins with a uv."""
    (tmp_path / "uv").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "uv").chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture
def uv(tmp_path):
    return path_with(tmp_path, "echo uv 1")


@pytest.fixture
def no_uv(tmp_path):
    return path_with(tmp_path, "exit 127")


@pytest.mark.parametrize(
    ("target", "extras"),
    [("repro", ["."]), ("setup", ["."]), ("ui", [".[ui]"]), ("check", [".[dev]"]), ("bench", [".[dev]", ".[bench]"])],
)
def test_each_target_installs_what_it_needs(no_uv, target, extras):
    found = installs(would_run(target, PATH=no_uv))
    assert [what.strip("'") for _, what in found] == extras
    assert all(pip.startswith(".venv/bin/python -m pip install ") for pip, _ in found)


def test_who_develops_has_the_pipeline_and_the_pages(no_uv):
    marks = next(line for line in would_run("test", PATH=no_uv).splitlines() if line.startswith("touch"))
    assert marks.split() == ["touch", ".venv/.installed", ".venv/.installed-ui", ".venv/.installed-dev"]


def test_uv_installs_where_it_is(uv):
    ((command, what),) = installs(would_run("repro", PATH=uv))
    assert command.startswith("uv pip install ") and "--python .venv/bin/python" in command
    assert what == "'.'"
    assert "uv venv " in would_run("repro", PATH=uv)


def test_uv_is_told_where_pip_looks(uv, tmp_path):
    there = {"PIP_INDEX_URL": "http://127.0.0.1/simple", "PIP_FIND_LINKS": "/wheels"}
    (tmp_path / "more.mk").write_text("include Makefile\nshown: ; @echo $$UV_DEFAULT_INDEX $$UV_FIND_LINKS\n")

    def told(**more):
        return make("--file", str(tmp_path / "more.mk"), "shown", PATH=uv, **more).split()

    assert told(**there) == ["http://127.0.0.1/simple", "/wheels"]
    assert told(**there, UV_FIND_LINKS="/others") == ["http://127.0.0.1/simple", "/others"]
    assert told() == []
