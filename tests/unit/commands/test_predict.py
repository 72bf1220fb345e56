"""`surefoot predict`: rows of any format, and what is wrong with them."""

import gzip
import json
import os
import struct
import subprocess
import sys
from contextlib import contextmanager
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from surefoot.base import paths
from surefoot.data.batch_store import open_store
from surefoot.params.params_yaml import load_params
from tests.helpers import Here, call_surefoot
from tests.served import network_says
from tests.unit.serving.test_mlflow_model import TABLE, write_table

TRAIN = "train: {model: {factory: networks.mlp:mlp, arguments: {hidden: [8]}}, epochs: 2, lr: 0.05}\n"


class Silent:
    def readouterr(self):
        return "", ""


@contextmanager
def trained(path, params):
    """A directory in which the model of params.yaml was trained, MLflow being out of reach."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        here = Here(path, Silent())
        (path / "params.yaml").write_text(params + TRAIN)
        for stage in ("prepare", "batch", "train"):
            assert here.stage(stage).code == 0
        yield path


def said():
    return network_says(open_store(paths.BATCHES), load_params(paths.PARAMS).train.model, paths.MODEL.read_bytes())


@pytest.fixture(scope="module")
def table_trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("table")
    write_table(path / "train.csv", 200, 0)
    write_table(path / "test.csv", 60, 1)
    with trained(path, TABLE):
        yield path, said()


@pytest.fixture(scope="module")
def images_trained(tmp_path_factory):
    """8 x 6 pixels, in shades of grey."""
    from PIL import Image

    path = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for name, rows in (("train", 60), ("test", 20)):
        for row in range(rows):
            file = path / name / ["cat", "dog"][row % 2] / f"{row:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (8, 6)).astype(np.uint8)).save(file)
    with trained(path, "prepare: {source: train, test_source: test, target: animal, images: {mode: L}}\n"):
        yield path, said()


@pytest.fixture
def table(table_trained, monkeypatch):
    monkeypatch.chdir(table_trained[0])
    return table_trained


@pytest.fixture
def images(images_trained, monkeypatch):
    monkeypatch.chdir(images_trained[0])
    return images_trained


@pytest.fixture
def predict(monkeypatch, capfd):
    return partial(call_surefoot, monkeypatch, capfd, "predict")


@pytest.fixture
def wrong(predict, tmp_path):
    """Runs it where it must refuse, in a line, and write nothing."""

    def run(*arguments, out=True):
        named = tmp_path / "out.csv"
        code, said, err = predict(*arguments, *(["--out", named] if out else []))
        assert code == 2, err
        assert said == ""
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1
        assert not named.exists()
        assert not list(tmp_path.glob(".*partial"))
        return err.removeprefix("error: ").strip()

    return run


def check(frame, said, classes):
    assert list(frame.columns)[-1 - len(classes) :] == ["prediction", *(f"probability_{label}" for label in classes)]
    assert np.abs(frame[[f"probability_{label}" for label in classes]].to_numpy() - said).max() < 1e-6
    assert frame["prediction"].tolist() == [classes[number] for number in said.argmax(1)]


def without_target(path):
    """The test rows without the target, as texts."""
    return pd.read_csv(path / "test.csv", dtype=str, keep_default_na=False).drop(columns=["churn"])


# --- tables ----------------------------------------------------------------------------------------


def test_predictions_stand_beside_the_rows(table, predict, tmp_path):
    path, said = table
    code, out, err = predict("test.csv", "--out", tmp_path / "out.csv")
    assert (code, err) == (0, "")
    assert out == f"{tmp_path / 'out.csv'}: 60 rows with the predictions of models/model.safetensors\n"
    given, made = (path / "test.csv").read_text().splitlines(), (tmp_path / "out.csv").read_text().splitlines()
    assert [line.startswith(f"{before},") for line, before in zip(made, given, strict=True)] == [True] * 61, (
        "each row as it was, in order"
    )
    check(pd.read_csv(tmp_path / "out.csv", dtype={"zip": str}), said, ["n", "y"])


def test_to_standard_output_and_nothing_else(table, predict, tmp_path):
    predict("test.csv", "--out", tmp_path / "out.csv")
    assert predict("test.csv") == (0, (tmp_path / "out.csv").read_text(), "")


def test_without_a_target_in_another_order_with_columns_of_no_use(table, predict, tmp_path):
    path, said = table
    frame = without_target(path)[::-1]
    frame.insert(0, "customer, by name", [f'"{row}", he said' for row in range(60)])
    frame = frame[sorted(frame.columns)]
    frame.to_csv(tmp_path / "new.csv.gz", index=False)
    assert predict(tmp_path / "new.csv.gz", "--out", tmp_path / "out.csv")[0] == 0
    made = pd.read_csv(tmp_path / "out.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(made[frame.columns], frame.reset_index(drop=True))
    check(made.astype({"probability_n": float, "probability_y": float}), said[::-1], ["n", "y"])


def test_parquet_with_types_of_its_own(table, predict, tmp_path):
    path, said = table
    frame = without_target(path)
    frame["income"] = pd.to_numeric(frame["income"])
    frame["joined"] = pd.to_datetime(frame["joined"])
    frame["seen"] = pd.to_datetime(frame["seen"])
    frame["active"] = frame["active"] == "true"
    frame["plan"] = frame["plan"].replace("", None).astype("category")
    frame.to_parquet(tmp_path / "new.parquet", index=False)
    assert predict(tmp_path / "new.parquet", "--out", tmp_path / "out.parquet")[0] == 0
    made = pd.read_parquet(tmp_path / "out.parquet")
    check(made, said, ["n", "y"])
    assert made["joined"].isna().tolist() == frame["joined"].isna().tolist()
    assert made["active"].dtype == bool


def test_several_files(table, predict, tmp_path):
    path, said = table
    frame = without_target(path)
    (tmp_path / "parts").mkdir()
    for part in range(2):
        frame[30 * part : 30 * (part + 1)].to_csv(tmp_path / f"parts/part-{part}.csv", index=False)
    assert predict(tmp_path / "parts", "--out", tmp_path / "out.csv")[0] == 0
    check(pd.read_csv(tmp_path / "out.csv"), said, ["n", "y"])


def test_more_rows_than_a_batch_has(table, predict, tmp_path):
    path, said = table
    pd.concat([without_target(path)] * 200).to_csv(tmp_path / "new.csv", index=False)
    assert predict(tmp_path / "new.csv", "--out", tmp_path / "out.parquet")[0] == 0
    check(pd.read_parquet(tmp_path / "out.parquet"), np.concatenate([said] * 200), ["n", "y"])


def test_another_model(table, predict, tmp_path):
    from surefoot.training import network as networks

    store = open_store(paths.BATCHES)
    other = networks.build("networks.mlp:mlp", {"hidden": [8]}, store.input_shape, 2, seed=7)
    (tmp_path / "other.safetensors").write_bytes(networks.to_bytes(other.state_dict()))
    assert predict("test.csv", "--out", tmp_path / "out.csv", "--model", tmp_path / "other.safetensors")[0] == 0
    said = network_says(store, load_params(paths.PARAMS).train.model, (tmp_path / "other.safetensors").read_bytes())
    check(pd.read_csv(tmp_path / "out.csv"), said, ["n", "y"])


CELLS = {
    "a text for a number": ("income", "much", "row 4, column 'income': 'much' is not a number"),
    "too large a number": ("income", "1e300", "row 4, column 'income': 1e+300 is more than float32 can hold"),
    "infinity": ("income", "inf", "row 4, column 'income': inf; a finite number is needed"),
    "no date": ("joined", "2024-02-31", "row 4, column 'joined': '2024-02-31' is not a date"),
    "no time of a zone": ("seen", "noon", "row 4, column 'seen': 'noon' is not a date"),
    "neither true nor false": ("active", "perhaps", "row 4, column 'active': 'perhaps' is not a boolean"),
    "a category that is missing": ("zip", "", None),
    "a boolean that is missing": ("active", "", "row 4, column 'active': empty; true or false is needed in every row"),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_value_that_can_not_be(table, predict, wrong, tmp_path, name):
    column, value, told = CELLS[name]
    frame = without_target(table[0])
    frame.loc[2, column] = value
    frame.to_csv(tmp_path / "new.csv", index=False)
    if told is None:  # a category of its own, as prepare.missing.category is `constant`
        assert predict(tmp_path / "new.csv")[0] == 0
    else:
        assert wrong(tmp_path / "new.csv").startswith(f"{tmp_path / 'new.csv'}: {told}")


def test_a_value_far_down_in_the_second_file(table, wrong, tmp_path):
    frame = pd.concat([without_target(table[0])] * 100, ignore_index=True)
    (tmp_path / "parts").mkdir()
    frame.to_csv(tmp_path / "parts/a.csv", index=False)
    frame.loc[5000, "income"] = "much"
    frame.to_csv(tmp_path / "parts/b.csv", index=False)
    assert (
        wrong(tmp_path / "parts")
        == f"{tmp_path}/parts/b.csv: row 5002, column 'income': 'much' is not a number; where it stands for a missing"
        " value, name it in prepare.missing.values"
    )
    assert "'much' is not a number" in wrong(tmp_path / "parts", out=False)


def test_columns_that_are_missing_or_of_another_kind(table, wrong, tmp_path):
    frame = without_target(table[0])
    frame.drop(columns=["plan"]).to_csv(tmp_path / "new.csv", index=False)
    assert "has no column 'plan', which the model (models/model.safetensors) needs; it has zip, income" in wrong(
        tmp_path / "new.csv"
    )
    frame.assign(prediction="y").to_csv(tmp_path / "new.csv", index=False)
    assert "has a column 'prediction' already, which is to be written; rename it" in wrong(tmp_path / "new.csv")
    frame["income"] = pd.to_numeric(frame["income"])
    frame["joined"] = pd.to_datetime(frame["joined"])
    pq.write_table(pa.table({name: frame[name] for name in frame} | {"joined": [1.5] * 60}), tmp_path / "n.pq")
    assert "row 1, column 'joined': 1.5 (double) is no date" in wrong(tmp_path / "n.pq")
    pq.write_table(pa.table({name: frame[name] for name in frame} | {"zip": [1234] * 60}), tmp_path / "n.pq")
    assert "column 'zip' holds values of type int64, but its categories are texts, such as '01000'" in wrong(
        tmp_path / "n.pq"
    )


def test_files_that_are_no_tables(table, wrong, tmp_path):
    assert wrong("nowhere.csv") == "nowhere.csv: there is no such file or directory"
    assert wrong(tmp_path / "x" / "nowhere.csv").endswith("there is no such file or directory")
    (tmp_path / "empty").mkdir()
    assert "is an empty directory" in wrong(tmp_path / "empty")
    (tmp_path / "new.csv").write_text("")
    assert "is empty; a header row with the column names must come first" in wrong(tmp_path / "new.csv")
    (tmp_path / "new.csv").write_text((table[0] / "test.csv").read_text().splitlines()[0] + "\n")
    assert "has a header but no rows" in wrong(tmp_path / "new.csv")
    (tmp_path / "new.parquet").write_bytes(b"PAR1 and so on")
    assert "isn't a Parquet file, or is cut short or damaged" in wrong(tmp_path / "new.parquet")
    (tmp_path / "new.csv.gz").write_bytes(gzip.compress((table[0] / "test.csv").read_bytes())[:-20])
    assert "new.csv.gz: its compressed data is damaged or cut short" in wrong(tmp_path / "new.csv.gz")
    (tmp_path / "new.xlsx").write_bytes(b"PK")
    assert "what it holds can't be told from its name" in wrong(tmp_path / "new.xlsx")
    np.savez(tmp_path / "new.npz", x=np.zeros((5, 3)))
    assert "new.npz: has no column 'zip', which the model" in wrong(tmp_path / "new.npz")


def test_where_it_can_not_be_written(table, wrong, tmp_path):
    assert "its ending must be one of .csv, .parquet, .pq" in wrong(
        "test.csv", "--out", tmp_path / "out.xlsx", out=False
    )
    (tmp_path / "there.csv").write_text("mine")
    assert "is there already; remove it, or give another name" in wrong(
        "test.csv", "--out", tmp_path / "there.csv", out=False
    )
    assert (tmp_path / "there.csv").read_text() == "mine"
    assert f"there is no directory {tmp_path}/x" in wrong("test.csv", "--out", tmp_path / "x/out.csv", out=False)
    paths.RAW.mkdir(parents=True, exist_ok=True)
    assert "would lie among the raw data" in wrong("test.csv", "--out", paths.RAW / "out.csv", out=False)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/a.csv").write_text((table[0] / "test.csv").read_text())
    assert "would lie among the raw data" in wrong(tmp_path / "parts", "--out", tmp_path / "parts/out.csv", out=False)


def test_a_model_that_is_not_there_or_does_not_fit(table, wrong, tmp_path, monkeypatch):
    assert wrong("test.csv", "--model", "no.safetensors") == "no.safetensors: there is no such file"
    assert wrong("test.csv", "--model", "a", "--run", "b") == "--model and --run: give one of them"
    (tmp_path / "cut.safetensors").write_bytes(paths.MODEL.read_bytes()[:-1])
    assert "isn't a safetensors file, or is cut short or damaged" in wrong(
        "test.csv", "--model", tmp_path / "cut.safetensors"
    )
    here = tmp_path / "here"
    here.mkdir()
    (here / "params.yaml").write_text(paths.PARAMS.read_text().replace("[8]", "[9]"))
    (here / "test.csv").write_text((table[0] / "test.csv").read_text())
    monkeypatch.chdir(here)
    assert wrong("test.csv") == "there is no model yet: models/model.safetensors doesn't exist; `make repro` makes one"
    paths.MODEL.parent.mkdir()
    paths.MODEL.write_bytes((table[0] / paths.MODEL).read_bytes())
    assert wrong("test.csv") == "data/batches/index.json isn't there; `dvc repro batch` makes it"
    paths.BATCHES.mkdir(parents=True)
    (paths.BATCHES / "index.json").write_text("{")
    assert "data/batches/index.json: is damaged" in wrong("test.csv")
    (paths.BATCHES / "index.json").write_text((table[0] / paths.BATCHES / "index.json").read_text())
    assert "models/model.safetensors: holds the weights of another network than networks.mlp:mlp" in wrong("test.csv")
    # The batches were made anew since, and the training failed, say.
    one, other = ("path: data/batches, md5: " + digit * 32 + ".dir" for digit in "12")
    (here / "dvc.lock").write_text(f"stages: {{train: {{deps: [{{{one}}}]}}, batch: {{outs: [{{{other}}}]}}}}\n")
    assert (
        wrong("test.csv")
        == "models/model.safetensors was trained on other batches than data/batches has now: `make repro` trains on"
        " these, or give a run (--run)"
    )


def test_mlflow_that_has_no_such_model(table, wrong, empty_store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{empty_store}")
    assert "models:/nobody@newest: MLflow at sqlite:///" in wrong("test.csv", "--model", "models:/nobody@newest")
    assert "there is no run 'nobody' in MLflow" in wrong("test.csv", "--run", "nobody")


# --- arrays and images -----------------------------------------------------------------------------


def pixels(path):
    from PIL import Image

    return np.stack([np.asarray(Image.open(file)) for file in sorted(path.glob("test/*/*.png"))])


def test_a_folder_of_images_with_classes_or_without(images, predict, tmp_path):
    path, said = images
    assert predict("test", "--out", tmp_path / "out.csv") == (
        0,
        f"{tmp_path / 'out.csv'}: 20 rows with the predictions of models/model.safetensors\n",
        "",
    )
    made = pd.read_csv(tmp_path / "out.csv")
    assert made["file"].tolist() == [str(file.relative_to(path)) for file in sorted(path.glob("test/*/*.png"))]
    check(made, said, ["cat", "dog"])
    (tmp_path / "flat").mkdir()
    for file in path.glob("test/*/*.png"):
        os.link(file, tmp_path / "flat" / f"{file.parent.name}-{file.name}")
    assert predict(tmp_path / "flat", "--out", tmp_path / "flat.parquet")[0] == 0
    check(pd.read_parquet(tmp_path / "flat.parquet"), said, ["cat", "dog"])


def test_arrays_with_targets_or_without(images, predict, tmp_path):
    path, said = images
    array = pixels(path)[:, None]
    np.savez(tmp_path / "new.npz", x=array)
    np.savez_compressed(tmp_path / "both.npz", x=array, y=np.zeros(20))
    np.save(tmp_path / "new.npy", np.asfortranarray(array))
    header = struct.pack(">BBBB3i", 0, 0, 8, 3, 20, 8, 6)
    (tmp_path / "new-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    for name in ("new.npz", "both.npz", "new.npy", "new-images-idx3-ubyte.gz"):
        out = tmp_path / f"{name}.csv"
        assert predict(tmp_path / name, "--out", out) == (
            0,
            f"{out}: 20 rows with the predictions of models/model.safetensors\n",
            "",
        )
        made = pd.read_csv(out)
        assert made["row"].tolist() == list(range(1, 21))
        check(made, said, ["cat", "dog"])


def test_arrays_that_do_not_fit(images, wrong, tmp_path):
    path, _ = images
    array = pixels(path)[:, None]
    np.savez(tmp_path / "new.npz", x=array[:, :, :7])
    assert (
        "its rows are uint8 of shape [1, 7, 6]; the model (models/model.safetensors) needs uint8 of 48 values"
        in wrong(tmp_path / "new.npz")
    )
    np.savez(tmp_path / "new.npz", x=array.astype(np.int64))
    assert "its rows are int64 of shape [1, 8, 6]" in wrong(tmp_path / "new.npz")
    np.savez(tmp_path / "new.npz", z=array)
    assert "has no array 'x', it has z" in wrong(tmp_path / "new.npz")
    np.save(tmp_path / "new.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert "holds pickled Python objects" in wrong(tmp_path / "new.npy")
    (path / "test" / "cat" / "broken.png").write_bytes(b"no image")
    try:
        assert "broken.png: isn't an image" in wrong("test")
    finally:
        (path / "test" / "cat" / "broken.png").unlink()
    (tmp_path / "new.csv").write_text("a,b\n1,2\n")
    assert "has no column 'input', which the model (models/model.safetensors) needs; it has a, b" in wrong(
        tmp_path / "new.csv"
    )


# --- as a process ----------------------------------------------------------------------------------

BOUNDED = """
import json, resource, sys
from pathlib import Path
from surefoot.commands.predict.command import write_predictions
for rows in sys.argv[1:]:
    write_predictions(Path(f"{rows}.csv"), Path(f"{rows}.parquet"))
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))
"""


@pytest.mark.slow
def test_memory_is_bounded(table, tmp_path):
    path, _ = table
    header, *rows = (path / "test.csv").read_text().splitlines(keepends=True)
    for times in (1_000, 20_000):
        (path / f"{times}.csv").write_text(header + "".join(rows) * times)  # 60,000 and 1,200,000 rows, 66 MB
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, "1000", "20000"],
        cwd=path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    few, many = (json.loads(line) for line in done.stdout.splitlines() if line.isdigit())
    assert many < few + 60, f"{few} MB, {many} MB"
    assert pq.read_metadata(path / "20000.parquet").num_rows == 1_200_000
