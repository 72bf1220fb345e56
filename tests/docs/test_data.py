"""The examples of docs/data.md, run as they stand there on small data."""

import gzip
import re
import struct
import sys
import types
from functools import cache

import numpy as np
import pytest
from ruamel.yaml import YAML

from tests.helpers import PROJECT

PAGE = (PROJECT / "docs/data.md").read_text()
KEYS = ("prepare", "batch", "train")
ROWS = 200


@cache
def blocks(language):
    """(heading, text) of each block of code."""
    found, heading = [], ""
    for match in re.finditer(rf"^#+ ([^\n]*)$|^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        heading = match[1] or heading
        if match[2]:
            found.append((heading, match[2]))
    return found


def code(heading):
    return [text for under, text in blocks("python") if under == heading]


# --- small data, by the path that an example names


def flowers():
    random = np.random.default_rng(0)
    return [f"{random.normal():.3f},{random.normal():.3f},{['rose', 'tulip', 'daisy'][row % 3]}" for row in range(ROWS)]


def write_flowers(path):
    path.write_text("\n".join(["length,width,species", *flowers()]) + "\n")


def write_export(path):
    path.write_bytes(
        gzip.compress(
            "\n".join(row.replace(",", ";").replace("rose", "röschen") for row in flowers()).encode("latin-1")
        )
    )


def write_parts(path):
    path.mkdir()
    for part in range(2):
        (path / f"part-{part}.csv").write_text("\n".join(["length,width,species", *flowers()[part::2]]) + "\n")


def write_customers(path):
    random = np.random.default_rng(0)
    lines = ["customer,zip,plan,income,joined,active,note_1,churn"]
    for row in range(ROWS):
        income = "" if row % 17 == 0 else f"{random.lognormal(8, 1):.2f}"
        joined = "" if row % 19 == 0 else f"20{row % 20:02}-0{1 + row % 9}-1{row % 10}"
        churn = "" if row == 23 else str(random.integers(2))
        lines.append(
            f"{1000 + row},0{random.integers(1000, 1004)},{['basic', 'pro', ''][row % 3]},{income},{joined},"
            f"{str(row % 2 == 0).lower()},n{row},{churn}"
        )
    path.write_text("\n".join(lines) + "\n")


def write_visits(path):
    random = np.random.default_rng(0)
    lines = [
        f"p{random.integers(40)},2024-{1 + row % 12:02}-{1 + row % 28:02},{random.normal():.3f},{random.integers(2)}"
        for row in range(ROWS)
    ]
    path.write_text("\n".join(["patient,day,pressure,ill", *lines]) + "\n")


def write_idx(path):
    rows = ROWS if path.name.startswith("train") else ROWS // 4
    random = np.random.default_rng(rows)
    labels = (np.arange(rows) % 3).astype(np.uint8)
    images = (random.integers(0, 100, (rows, 8, 8)) + 50 * labels[:, None, None]).astype(np.uint8)
    for array, file in ((images, path), (labels, path.with_name(path.name.replace("images-idx3", "labels-idx1")))):
        file.write_bytes(
            gzip.compress(struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())
        )


def write_pictures(path):
    from PIL import Image

    for row in range(40):
        file = path / ["cat", "dog"][row % 2] / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9 + row % 3, 10, 3), 100 * (row % 2) + row, np.uint8)).save(file)


def write_tokens(path):
    x = np.random.default_rng(0).integers(0, 30, (ROWS, 6))
    np.savez(path, x=x, y=np.where(x[:, 0] < 15, "de", "en"))


def write_splits(path):
    random = np.random.default_rng(0)
    sizes = {"train": ROWS, "test": 20}
    arrays = {f"x_{split}": random.integers(0, 30, (rows, 6)) for split, rows in sizes.items()}
    np.savez(path, **arrays, **{f"y_{split}": np.where(arrays[f"x_{split}"][:, 0] < 15, "de", "en") for split in sizes})


WRITE = {
    "splits.npz": write_splits,
    "flowers.csv": write_flowers,
    "export.csv.gz": write_export,
    "flowers": write_parts,
    "customers.csv": write_customers,
    "visits.csv": write_visits,
    "train-images-idx3-ubyte.gz": write_idx,
    "t10k-images-idx3-ubyte.gz": write_idx,
    "pictures": write_pictures,
    "tokens.npz": write_tokens,
}


def set_up(here, monkeypatch, example):
    """params.yaml as the example says, the rest of it small; and the data."""
    params = {
        "train": {"model": {"factory": "networks.mlp:mlp", "arguments": {"hidden": [4]}}, "epochs": 1, "lr": 0.001}
    }
    given = YAML(typ="safe").load(example)
    assert given.keys() <= set(KEYS)
    for key in KEYS:
        params[key] = params.get(key, {}) | given.get(key, {})
    with (here / "params.yaml").open("w") as file:
        YAML().dump(params, file)
    prepare = given["prepare"]
    (here / "data/raw").mkdir(parents=True)
    for source in filter(None, (prepare["source"], prepare.get("test_source"))):
        if source.startswith("data/raw/"):
            WRITE[source.removeprefix("data/raw/")](here / source)
        elif not source.startswith("sklearn:"):
            name, _, _ = source.partition(":")
            module = types.ModuleType(name)
            exec("\n".join(code("A reader of your own")), module.__dict__)
            monkeypatch.setitem(sys.modules, name, module)
    return params


def ran(here, stage):
    done = here.stage(stage)
    assert done.code == 0, done
    return done


@pytest.mark.parametrize(
    ("heading", "example"),
    blocks("yaml"),
    ids=[f"{number}-{heading}" for number, (heading, _) in enumerate(blocks("yaml"))],
)
def test_an_example(tracked, monkeypatch, heading, example):
    """Each is prepared and batched, and its network and loss are tried, as train does before its first step."""
    params = set_up(tracked, monkeypatch, example)
    ran(tracked, "start_from")
    done = ran(tracked, "prepare")
    assert f"prepared {params['prepare']['source']}: " in done.out
    assert "DVC doesn't watch" not in done.out
    assert "batched " in ran(tracked, "batch").out
    from surefoot.base import paths
    from surefoot.data.batch_store import open_store
    from surefoot.params.params_yaml import load_params
    from surefoot.run.plan.planning import plan_run

    store = open_store(paths.BATCHES)
    assert len(plan_run(load_params(paths.PARAMS), store).epoch_keys()) == 1
    assert store.index.shuffle == params["batch"].get("shuffle", "full")
    if "missing" in params["prepare"]:
        assert store.index.preparation.dropped == {"'churn' (the target) is missing": 1}


def test_from_a_notebook(tracked, monkeypatch):
    set_up(tracked, monkeypatch, blocks("yaml")[0][1])
    for stage in ("prepare", "batch", "train", "evaluate"):
        ran(tracked, stage)
    (run,) = tracked.runs()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tracked / 'mlflow.db'}")
    names = {"model_id": run.data.tags["surefoot.model_id"]}
    minibatch, preparation, model = code("From a notebook")
    exec(minibatch, names)
    assert names["inputs"].shape == (64, 2)
    assert names["targets"].shape == (64,)
    exec(preparation, names)
    assert names["inputs"].shape == (ROWS, 2)
    assert sorted(names["inputs"].tolist())[0] <= sorted(names["store"].train.inputs.tolist())[0]
    exec(model, names)
    assert list(names["predictions"]) == ["prediction", "probability_daisy", "probability_rose", "probability_tulip"]
    assert len(names["predictions"]) == ROWS


def test_every_kind_of_source_has_an_example():
    shown = " ".join(text for _, text in blocks("yaml"))
    assert all(f"data/raw/{name}" in shown for name in WRITE)
    assert "sklearn:" in shown
    assert "sources.mine:rows" in shown
