"""What prepare says and shows: in a process of its own, as a user runs it."""

import json
import os
import pty
import subprocess
import sys
import termios

import numpy as np
import pytest

from tests.helpers import PARAMS, PROJECT


def test_dropped_rows_and_warnings_are_told(here):
    here.csv()
    lines = (here / "raw.csv").read_text().splitlines()
    rows = [f"{line},5" for line in lines[1:]]
    rows[4] = ",3,x,5"
    (here / "raw.csv").write_text("\n".join([lines[0] + ",c", *rows]) + "\n")
    (here / "params.yaml").write_text(PARAMS.replace("  target: kind", "  target: kind\n  missing: {numeric: drop}"))
    done = here.stage("prepare")
    assert done.code == 0, done
    assert done.out.splitlines()[:5] == [
        "preparing raw.csv",
        (
            "note: raw.csv: the same value in every training row, from which nothing is learned: 'c' (prepare.ignore"
            " leaves a column out)"
        ),
        "numeric: 'a', 'b', 'c'",
        "missing values: 1 in 'a'",
        "dropped 1 row: 1 where 'a' is missing",
    ]
    assert done.out.splitlines()[5].startswith("prepared raw.csv: 3 inputs, 3 classes; rows: ")
    assert done.out.splitlines()[6].startswith(
        "DVC doesn't watch raw.csv, so it won't run prepare again when that changes: symlink the file into data/raw"
    )
    assert done.err == ""


def test_a_text_among_numbers_is_no_category(here):
    here.csv()
    text = (here / "raw.csv").read_text()
    (here / "raw.csv").write_text(text.replace("\n0.0,", "\nzero,", 1))
    refused = here.stage("prepare").refused()
    assert "column 'a': 'zero' is not a number, as almost all of the others are" in refused
    assert not (here / "data/prepared").exists()
    (here / "params.yaml").write_text(PARAMS.replace("  target: kind", "  target: kind\n  kinds: {a: category}"))
    assert here.stage("prepare").code == 0


def test_a_column_whose_name_is_a_pattern_is_a_category_if_it_is_called_one(here):
    here.csv()
    text = (here / "raw.csv").read_text().replace("a,b,kind", "a[1],b,kind")
    (here / "raw.csv").write_text(text.replace("\n0.0,", "\nzero,", 1))
    (here / "params.yaml").write_text(PARAMS.replace("  target: kind", "  target: kind\n  kinds: {'a[1]': category}"))
    assert here.stage("prepare").code == 0


def test_a_bar_is_shown_on_a_terminal_only(here):
    here.csv()
    command = [sys.executable, "-m", "surefoot.stages.prepare"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src"), "TERM": "dumb", "COLUMNS": "120"}
    plain = subprocess.run(command, capture_output=True, text=True, cwd=here.path, env=environment)
    assert plain.returncode == 0
    assert "rows/s" not in plain.stderr
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    termios.tcsetwinsize(theirs, (24, 150))
    shown = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, text=True, cwd=here.path, env=environment)
    seen = os.read(ours, 100_000).decode()
    os.close(theirs)
    os.close(ours)
    assert shown.returncode == 0
    assert shown.stdout == plain.stdout
    assert "raw.csv: " in seen
    assert "60 rows, " in seen
    assert " rows/s" in seen


def test_splits_in_one_npz_file(here):
    """As Keras and MedMNIST ship them."""
    random = np.random.default_rng(0)
    sizes = {"train": 60, "val": 9, "test": 12}
    arrays = {f"x_{split}": random.integers(0, 256, (rows, 4, 4), dtype=np.uint8) for split, rows in sizes.items()}
    np.savez(
        here / "all.npz", **arrays, **{f"y_{split}": (np.arange(rows) % 3)[:, None] for split, rows in sizes.items()}
    )
    keys = {
        "inputs": "x_train",
        "targets": "y_train",
        "validation_inputs": "x_val",
        "validation_targets": "y_val",
        "test_inputs": "x_test",
    }
    here.edit("prepare.source", f"all.npz\n  arrays: {json.dumps(keys | {'test_targets': 'y_test'})}")
    done = here.stage("prepare")
    assert "rows: 60 train, 9 validation, 12 test" in done.out, done
    here.edit("prepare.arrays", json.dumps(keys))
    assert "test_inputs and test_targets: give both, or neither" in here.stage("prepare").refused()
    here.edit("prepare.arrays", json.dumps(keys | {"test_inputs": "x_train", "test_targets": "y_train"}))
    assert "test_inputs: x_train has the training rows; name another array" in here.stage("prepare").refused()


@pytest.mark.parametrize("source", ["/", ".", "..", "//", "/../"])
def test_a_source_that_holds_the_project(here, source):
    here.edit("prepare.source", source)
    told = (
        f"error: params.yaml: prepare.source: {source} holds this project itself; name the file or the directory of the"
        " data\n"
    )
    assert here.stage("prepare").refused() == told
    assert here.files() == {"params.yaml"}


def test_what_lies_beside_the_data_is_counted_in_each_source(here):
    here.csv()
    for name in ("train", "validation", "test"):
        (here / name).mkdir()
        lines = (here / "raw.csv").read_text().splitlines()
        first = ["train", "validation", "test"].index(name) * 20 + 1
        (here / name / "part.csv").write_text("\n".join([lines[0], *lines[first : first + 20]]) + "\n")
        (here / name / "Thumbs.db").write_bytes(b"x")
        (here / name / "README.md").write_text("x")
    here.edit("prepare.source", "train\n  validation_source: validation\n  test_source: test")
    done = here.stage("prepare")
    assert done.code == 0, done
    for name in ("train", "validation", "test"):
        assert f"note: {name}: passed over 2 files that are no data: {name}/README.md, {name}/Thumbs.db\n" in done.out
