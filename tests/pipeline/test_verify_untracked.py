"""Runs of raw data that Git doesn't have, and of code that wasn't committed: what is recorded of them, and `surefoot
verify`.
"""

import pytest

from surefoot.tracking import tag_names
from surefoot.tracking.patch_artifact import PATCH
from tests.helpers import make_workspace

MINE = "data/raw/mine.csv"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs of one state of the code, which isn't committed, and of two states of the data."""
    workspace = make_workspace(tmp_path_factory.mktemp("untracked") / "project")
    workspace.edit("prepare.source", MINE)
    (workspace / "src/networks/new.py").write_text("NEW = 1\n")
    rows = (workspace / "data/raw/digits.csv").read_text().splitlines(keepends=True)
    for count, last in ((600, "train"), (700, "evaluate")):
        (workspace / MINE).write_text("".join(rows[:count]))
        workspace.dvc("repro", last)
    return workspace


def verify(workspace, run, *more):
    return workspace.run(
        ".venv/bin/python",
        "-m",
        "surefoot",
        "verify",
        run.info.run_id,
        "--trust-recorded-code",
        *more,
        check=False,
        PYTHONPATH="src",
    )


def test_the_patch_has_the_source_once_and_no_data(made):
    later, earlier = made.runs()
    patches = [made.artifact(run, PATCH) for run in (earlier, later)]
    assert [path.exists() for path in patches] == [True, False]
    text = patches[0].read_text()
    assert "+NEW = 1" in text and f"+  source: {MINE}" in text and "b/data" not in text
    assert {run.data.tags[tag_names.PATCH_RUN] for run in (earlier, later)} == {earlier.info.run_id}
    assert len({run.data.tags["surefoot.git.patch"] for run in (earlier, later)}) == 1
    assert len({run.data.tags["surefoot.git.data"] for run in (earlier, later)}) == 2
    assert [path.read_text() for path in (made / ".surefoot/patches").iterdir()] == [text]
    for mark in (made / ".surefoot/runs").iterdir():
        assert "NEW = 1" not in mark.read_text()


def test_a_run_whose_data_lie_here_is_made_again(made):
    later, _ = made.runs()
    done = verify(made, later)
    assert done.code == 0, done
    assert "identical: params, data, epochs 1-3" in done.out


def test_a_run_whose_data_are_gone_cannot_be(made):
    _, earlier = made.runs()
    done = verify(made, earlier)
    assert done.code == 3, done
    assert "cannot say: its raw data, of which its commit has no copy, aren't those that lie here now" in done.out


def test_data_that_git_got_after_the_training_are_found_and_a_patch_that_mlflow_lost(made):
    """Committed with the result, as one does, and more come later; the store has the patch. Batches are made again."""
    later, earlier = made.runs()
    patch = made.artifact(earlier, PATCH)
    text = patch.read_bytes()
    made.run("git", "add", "data", "src")
    made.run("git", "commit", "--quiet", "--message", "the data")
    more = made / "data/raw/more.csv"
    more.write_text("a,b\n")
    patch.unlink()
    (made / "data/batches").rename(made.path.with_name("batches"))
    try:
        done = verify(made, later, "--epochs", "1")
    finally:
        made.path.with_name("batches").rename(made / "data/batches")
        patch.write_bytes(text)
        more.unlink()
        made.run("git", "reset", "--quiet", "--mixed", "HEAD^")
    assert done.code == 0, done
    assert "prepared data/raw/mine.csv: " in done.out
    assert "identical: params, epoch 1;" in done.out
