"""An older params.yaml brought to the installed version: by the table, with the user's comments and layout."""

import re
from pathlib import Path

import pytest

from surefoot.base.errors import UserError
from surefoot.base.installation import installed_version
from surefoot.base.yaml12 import from_yaml
from surefoot.params import changes
from surefoot.params.changes import CHANGES, Change, upgraded_params
from surefoot.params.dotted_keys import flatten
from surefoot.params.params_yaml import load_params
from surefoot.params.sections import default_of, default_values

OLDEST = (Path(__file__).parent / "oldest/params-0.1.0.yaml").read_text()
MINE = """\
# mine
surefoot: 0.1.0
seed: 7  # of luck

prepare: {source: a.csv, target: b}
train:
  # how fast
  # it learns
  speed: 0.1  # tried 0.2
  model:
    factory: networks.mine:mlp
    arguments: {hidden: [8]}
  # the last comment
batch:
  size: 32
"""


def test_every_key_that_came_or_went_is_in_the_table():
    """Who adds or renames a key of params.yaml notes it in `changes.CHANGES`, by the version that has it."""
    known = flatten(from_yaml(OLDEST)).keys() - {"train.model.arguments.hidden"}
    for change in CHANGES.values():
        known = {change.renamed.get(key, key) for key in known} | {*change.came}
    now = default_values().keys() - {"train.model.arguments"}
    now = {key for key in now if not key.startswith("train.schedule")}
    assert {key for key in known if not key.startswith("train.schedule")} == now


def test_the_oldest_file_gets_its_version_and_stays_as_it_is(tmp_path):
    installed = installed_version()
    made = upgraded_params(OLDEST, installed)
    meaning = "# The version of Surefoot that this file is of: another one that is installed refuses it."
    added = f"{meaning}\nsurefoot: {installed}\n"
    assert made == OLDEST.replace("seed: 0 ", f"{added}seed: 0 ")
    assert upgraded_params(made, installed) == made
    (tmp_path / "params.yaml").write_text(OLDEST)
    before = load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text(made)
    assert load_params(tmp_path / "params.yaml").model_dump() == before.model_dump()


@pytest.fixture
def table(monkeypatch):
    def given(**by_version):
        known = {version.replace("_", ".").strip("v"): change for version, change in by_version.items()}
        monkeypatch.setattr(changes, "CHANGES", known)

    return given


@pytest.mark.parametrize("given", ["0.9", "'0.9.1'", "0.9.1"])
@pytest.mark.parametrize("installed", ["1.0", "1.0rc1", "1.0.0+local.1"])
def test_a_version_that_looks_like_a_number_is_a_text(given, installed):
    assert from_yaml(upgraded_params(f"surefoot: {given}\nseed: 0\n", installed)) == {"surefoot": installed, "seed": 0}


def test_a_renamed_key_keeps_its_value_and_comments(table):
    table(v0_2_0=Change(renamed={"train.speed": "train.lr"}))
    assert upgraded_params(MINE, "0.2.0") == MINE.replace("0.1.0", "0.2.0").replace("speed:", "lr:")


def test_a_key_that_moves_to_another_section_takes_its_comments_along(table):
    table(v0_2_0=Change(renamed={"train.speed": "batch.lr"}), v0_3_0=Change(renamed={"batch.lr": "lr"}))
    moved = "  # how fast\n  # it learns\n  speed: 0.1  # tried 0.2\n"
    one = upgraded_params(MINE, "0.2.0")
    assert one == MINE.replace("0.1.0", "0.2.0").replace(moved, "") + moved.replace("speed", "lr")
    both = upgraded_params(MINE, "0.3.0")
    assert from_yaml(both)["lr"] == 0.1
    assert "# how fast\n# it learns\nlr: 0.1  # tried 0.2\n" in both
    assert both == upgraded_params(one, "0.3.0"), "whether in one step or in two"
    flow = "batch: {size: 2}\ntrain: {epochs: 1, speed: 0.1}\n"
    assert upgraded_params(flow, "0.2.0").endswith("batch: {size: 2, lr: 0.1}\ntrain: {epochs: 1}\n")


def test_a_section_that_moves_keeps_its_layout(table):
    table(v0_2_0=Change(renamed={"train.model": "network"}))
    made = upgraded_params(MINE, "0.2.0")
    assert "network:\n  factory: networks.mine:mlp\n  arguments: {hidden: [8]}\n" in made
    assert from_yaml(made)["network"] == from_yaml(MINE)["train"]["model"]


def test_a_key_that_came_is_written_with_its_default_where_its_section_is(table):
    table(v0_2_0=Change(came=("train.clip_norm", "batch.drop_last", "prepare.csv.quote", "threads")))
    made = upgraded_params(MINE, "0.2.0")
    assert made.startswith("# mine\nsurefoot: 0.2.0\n# CPU threads in training.\nthreads: 1\nseed: 7  # of luck\n")
    assert re.search(r"batch:\n  size: 32\n  # [^\n]+\n  drop_last: false\n$", made)
    assert re.search(r"hidden: \[8\]}\n  # [^\n]+\n  clip_norm: null\n  # the last comment\n", made)
    expected = from_yaml(MINE)
    expected |= {"surefoot": "0.2.0", "threads": 1}
    expected["train"]["clip_norm"], expected["batch"]["drop_last"] = None, False
    assert from_yaml(made) == expected, "prepare.csv isn't there, so its keys have their defaults"
    given = MINE.replace("size: 32", "size: 32\n  drop_last: true")
    assert from_yaml(upgraded_params(given, "0.2.0"))["batch"] == {"size": 32, "drop_last": True}


def test_only_the_versions_between_count(table):
    table(v0_1_0=Change(renamed={"seed": "a"}), v0_2_0=Change(renamed={"seed": "b"}), v0_10_0=Change(came=("threads",)))
    assert {"b"} <= from_yaml(upgraded_params(MINE, "0.9.0")).keys()
    assert "threads" not in from_yaml(upgraded_params(MINE, "0.9.0"))
    assert "threads" in from_yaml(upgraded_params(MINE.replace("0.1.0", "0.9.0"), "0.10.0"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("surefoot: 9.0.0\n", "surefoot: it is of 9.0.0, and 0.2.0 is installed, which is older"),
        ("surefoot: latest\n", "'latest' is no version"),
        ("train: {speed: 1, lr: 2}\n", "train.speed is called train.lr now, and both are given; keep one"),
        ("- 1\n", "must be a mapping of sections"),
        ("a: &x {speed: 1}\ntrain: *x\n", "is written in a way that can't be edited"),
    ],
)
def test_what_cannot_be_brought_up_is_refused(table, text, said):
    table(v0_2_0=Change(renamed={"train.speed": "train.lr"}))
    with pytest.raises(UserError, match=said):
        upgraded_params(text, "0.2.0")


def test_the_default_of_a_key():
    assert default_of("seed") == 0
    assert default_of("prepare.csv.quote") == '"'
    assert default_of("train.early_stopping")["patience"] is None
