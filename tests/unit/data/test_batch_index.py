import json

import pytest

from surefoot.base import digests
from surefoot.base.errors import UserError
from surefoot.data.batch_index import ArrayFile, Preparation, SplitFiles, read_index, write_index
from surefoot.data.part_files import PartFile
from surefoot.data.splits import SPLITS

FEATURE = {"column": "a", "kind": "numeric", "unit": None, "fill": [0.0], "first": 0, "width": 1, "names": ["a"]}
PREPARATION = Preparation(
    source="raw",
    dropped={"x": 1},
    examples=[[1, "ä"]],
    split={"seed": 0},
    notation={"missing": [""], "decimal": ".", "thousands": None},
)
PART = PartFile(path="raw/1.csv", digest="ab" * 32, rows={"train": 4, "validation": 2, "test": 1})
FILES = SplitFiles(
    rows=3,
    class_counts=[3, 0],
    inputs=ArrayFile(dtype="float32", shape=[3, 1], sha256="cd" * 32),
    targets=ArrayFile(dtype="int64", shape=[3], sha256="ef" * 32),
)
ALL = {
    "target_scale": {"subtract": [0.5], "divide": [2.0]},
    "blocks": (4, 2),
    "scale": {"subtract": [1.0], "divide": [3.0]},
}


def write(out, **more):
    write_index(
        out,
        dict.fromkeys(reversed(SPLITS), FILES),
        batch_size=2,
        drop_last=False,
        shape=(1,),
        classes=["x", "ü"],
        preparation=PREPARATION,
        features=[FEATURE],
        parts=[PART],
        **more,
    )
    return out / "index.json"


def rewrite(path, change):
    """The index with another content, and the digest of that."""
    index = json.loads(path.read_text())
    del index["digest"]
    change(index)
    path.write_text(json.dumps(index | {"digest": digests.sha256(digests.canonical_json(index))}))
    return path.parent


@pytest.mark.parametrize("more", [{}, ALL])
def test_what_is_read_is_what_was_written(tmp_path, more):
    path = write(tmp_path, **more)
    index = read_index(tmp_path)
    assert json.dumps(index.plain(), indent=2) + "\n" == path.read_text()
    assert (index.preparation, index.parts, index.splits) == (PREPARATION, [PART], dict.fromkeys(SPLITS, FILES))


@pytest.mark.parametrize(
    ("more", "digest"),
    [
        ({}, "6694e1e69ccde7e189e1fe45e7234534dfb57f659679ee5b7c7d360605b41c6c"),
        (ALL, "9682d6ef3a39f3e564ed9832c2eba99f40fa172c52331a4c21c070946b4eeaca"),
    ],
)
def test_the_bytes_stay_as_they_are(tmp_path, more, digest):
    """They are an output of DVC: other bytes, and everybody's batches are made again, and trained on again."""
    assert digests.sha256_file(write(tmp_path, **more)) == digest


def test_an_older_one_lacks_some_keys_and_has_others(tmp_path):
    def older(index):
        del index["parts"]
        for name in ("split", "notation", "examples"):
            del index["preparation"][name]
        index["source"] = "raw.csv"

    index = read_index(rewrite(write(tmp_path), older))
    assert (index.parts, index.target_scale, index.preparation.split) == ([], None, {})
    assert index.plain() == json.loads((tmp_path / "index.json").read_text())
    assert "notation" not in index.network_description()


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.pop("batch_size"),
        lambda index: index.update(batch_size="2"),
        lambda index: index.update(shuffle="often"),
        lambda index: index.update(splits=[]),
        lambda index: index["splits"]["train"].pop("class_counts"),
        lambda index: index["parts"].append("raw/2.csv"),
    ],
)
def test_one_that_does_not_say_what_it_should_is_damaged(tmp_path, change):
    with pytest.raises(UserError, match=r"index\.json: is damaged; remove it, and `dvc repro batch` makes it again"):
        read_index(rewrite(write(tmp_path), change))
