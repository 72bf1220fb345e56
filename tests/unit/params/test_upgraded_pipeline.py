"""A user's dvc.yaml brought to the template's stages: the rest of it stays, byte for byte."""

import difflib
from pathlib import Path

import pytest

from surefoot.base.errors import UserError
from surefoot.base.yaml12 import from_yaml
from surefoot.commands.init.pipeline import template
from surefoot.params.upgraded_pipeline import upgraded_pipeline

OLDEST = (Path(__file__).parent / "oldest/dvc-0.1.0.yaml").read_text()
TEMPLATE = template("pipeline.yaml")
OWN = """\
  # The user's own.
  report:  # a comment
    cmd: ./report.sh
    deps: [reports/metrics.json]   # as it is
    outs:
      - report.html
"""


def upgraded(text):
    made = upgraded_pipeline(text, TEMPLATE)
    assert upgraded_pipeline(made, TEMPLATE) == made, "twice is once"
    return made


def test_the_template_itself_is_up_to_date():
    assert upgraded(TEMPLATE) == TEMPLATE


def test_the_oldest_pipeline_has_the_templates_stages():
    made = from_yaml(upgraded(OLDEST))
    wanted = from_yaml(TEMPLATE)
    assert made["stages"].keys() == wanted["stages"].keys()
    for name, stage in made["stages"].items():
        assert stage["cmd"] == wanted["stages"][name]["cmd"]
        assert stage["outs"] == wanted["stages"][name]["outs"]
        assert sorted(map(str, stage["params"])) == sorted(map(str, wanted["stages"][name]["params"]))
        assert not [dep for dep in stage["deps"] if dep.startswith("src/surefoot")]
    assert made["stages"]["prepare"]["deps"] == ["data/raw", "data/start_from/preparation.json", "src/sources"]
    assert made["plots"] == from_yaml(OLDEST)["plots"]
    removed = [line[1:] for line in difflib.ndiff(OLDEST.splitlines(), upgraded(OLDEST).splitlines()) if line[0] == "-"]
    assert not [line for line in removed if line.strip().startswith("#")], "no comment is lost"


def test_what_is_the_users_own_stays():
    mine = OLDEST.replace("  prepare:\n", f"{OWN}  prepare:\n", 1)
    mine = mine.replace("deps: [data/raw, data/start_from/", "deps: [extra.csv, data/raw, data/start_from/")
    mine = mine.replace("outs: [data/prepared]", "outs: [data/prepared: {cache: false}, more]\n    desc: mine")
    command = '"$DVC_ROOT"/.venv/bin/python -m surefoot.stages.train'
    mine = mine.replace(f"PYTHONPATH=src {command}", f"OMP_X=1 PYTHONPATH=src {command}")
    made = upgraded(mine)
    assert OWN in made
    stages = from_yaml(made)["stages"]
    assert [*stages] == ["start_from", "report", "prepare", "batch", "train", "evaluate"]
    assert stages["prepare"]["deps"][0] == "extra.csv"
    assert stages["prepare"]["outs"] == [{"data/prepared": {"cache": False}}, "more"]
    assert stages["prepare"]["desc"] == "mine"
    assert stages["train"]["cmd"] == f"exec env OMP_X=1 PYTHONPATH=src {command}"


BLOCKS = """\
stages:
    digits:
        cmd: python -m surefoot.stages.train
        deps:
        - data/batches   # the batches
        - src/surefoot   # which a package has elsewhere
        - src/surefoot/run
        - mine.txt
        outs:
        - models/run.json:
            cache: false
        # the end of it
    other:
        cmd: x
"""


def test_lists_in_lines_and_stages_of_other_names_and_those_that_lack():
    made = upgraded(BLOCKS)
    stages = from_yaml(made)["stages"]
    assert stages.keys() == {"start_from", "prepare", "batch", "digits", "evaluate", "other"}
    assert sorted(stages["digits"]["deps"]) == ["data/batches", "data/start_from", "mine.txt", "src/networks"]
    assert {"models/run.json": {"cache": False}} in stages["digits"]["outs"]
    assert "reports/history.csv" in stages["digits"]["outs"]
    assert stages["digits"]["params"] == [{"params.yaml": None}]
    assert "        - data/batches   # the batches\n" in made
    assert "which a package has elsewhere" not in made
    assert "        # the end of it\n" in made
    assert "    # The size by itself, too" in made, "a new stage has its comments"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a: 1\n", "it has no stage of Surefoot's"),
        ("stages: {x: {cmd: y}}\n", "it has no stage of Surefoot's"),
        (
            BLOCKS.replace("other", "prepare"),
            "its stage prepare isn't Surefoot's, which has one of that name: rename it",
        ),
        (
            BLOCKS.replace("        deps:\n", "        deps: &d\n") + "        deps: *d\n",
            "written in a way that can.t be edited",
        ),
        (
            "stages:\n  t:\n    foreach: [1]\n    do: {cmd: python -m surefoot.stages.train}\n",
            "the stage t is made several by DVC",
        ),
        (
            "x: &t {cmd: python -m surefoot.stages.train, deps: [a]}\nstages:\n  t: *t\n  u: *t\n",
            "its stages are written in a way that can't be edited",
        ),
    ],
)
def test_what_cannot_be_edited_is_said_and_left(before, after):
    with pytest.raises(UserError, match=after):
        upgraded_pipeline(before, TEMPLATE)
