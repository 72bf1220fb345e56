"""The pictures of README and docs are those of today."""

import re

import pytest

from tests.docs.pictures import IMAGES, make
from tests.helpers import PROJECT, make_workspace

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


@pytest.mark.slow
def test_those_that_a_command_makes(tmp_path):
    made = make(make_workspace(tmp_path / "project"))
    assert made.keys() == {"training.png", "mistakes.png", "lr-find.png", "schedule.png", "scaling.png", "promises.png"}
    other = [name for name, data in made.items() if (IMAGES / name).read_bytes() != data]
    assert not other, f"{other} are of another day: python -m tests.docs.pictures makes them anew"


def test_each_is_shown_somewhere_and_each_that_is_shown_is_there():
    shown = {
        (page.parent / name).resolve()
        for page in PAGES
        for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text())
    }
    assert shown == {path.resolve() for path in IMAGES.rglob("*") if path.is_file()}
