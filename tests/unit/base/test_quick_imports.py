"""Garbage collection is off while a large package is imported, and on afterwards."""

import gc
import subprocess
import sys

import pytest

from surefoot.base.quick_imports import collect_from_here, quick_imports
from tests.helpers import PROJECT


@pytest.fixture(autouse=True)
def as_before():
    yield
    gc.unfreeze()
    gc.enable()


def test_nothing_is_collected_in_the_block_and_what_is_there_never_again():
    frozen = gc.get_freeze_count()
    with quick_imports("a_package_that_is_not_there"):
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > frozen


def test_it_is_on_again_after_an_import_that_fails():
    with pytest.raises(ModuleNotFoundError), quick_imports("a_package_that_is_not_there"):
        import a_package_that_is_not_there  # noqa: F401
    assert gc.isenabled()


def test_a_package_that_is_there_changes_nothing():
    """Else what is garbage by then would stay for good."""
    frozen = gc.get_freeze_count()
    with quick_imports("json"):
        assert gc.isenabled()
    collect_from_here()
    assert gc.get_freeze_count() == frozen


@pytest.mark.parametrize(
    "command", [["-m", "surefoot.stages.batch"], ["-m", "surefoot", "schema"]], ids=["stage", "command"]
)
def test_a_process_of_ours_ends_with_it_on(command, tmp_path):
    tell = "import atexit, gc; atexit.register(lambda: print(gc.isenabled(), gc.get_freeze_count() > 1000))"
    (tmp_path / "sitecustomize.py").write_text(tell)
    path = f"{tmp_path}:{PROJECT / 'src'}"
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env={"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "True True", done
