"""Each kind of data through all four stages, and its model from MLflow on raw rows: it must say what evaluate said of
the test rows.
"""

import csv
import gzip
import json
import struct
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from surefoot.commands.predict.command import write_predictions
from tests.helpers import PROJECT

DROPPED = "surefoot.data.dropped"


@pytest.fixture
def pipeline(tracked, monkeypatch):
    """Runs all stages; returns the run, the model as MLflow loads it, and the rows of predictions.csv."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tracked / 'mlflow.db'}")

    def run(model, batch=None, **sections):
        loss = sections.pop("loss", {})
        lr = sections.pop("lr", 0.1)
        train = {"model": model, "epochs": 15, "lr": lr, "momentum": 0.9, "loss": loss}
        with (tracked / "params.yaml").open("w") as file:
            YAML().dump({"prepare": sections, "batch": {"size": 32, **(batch or {})}, "train": train}, file)
        for stage in ("prepare", "batch", "train", "evaluate"):
            done = tracked.stage(stage)
            assert done.code == 0, done
            assert "can't be written" not in done.err, done
        import mlflow

        (found,) = tracked.runs()
        with (tracked / "reports/predictions.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        return found, mlflow.pyfunc.load_model(f"models:/{found.data.tags['surefoot.model_id']}"), rows

    return run


def served(model, raw, rows):
    """What the model says of raw rows: evaluate must have said the same."""
    given = model.predict(raw)
    assert given["prediction"].astype(str).tolist() == [row["predicted"] for row in rows]
    return given


def metrics(here, run):
    found = json.loads((here / "reports/metrics.json").read_text())["test"]
    assert {
        name.removeprefix("test/"): value for name, value in run.data.metrics.items() if name.startswith("test/")
    } == found
    return found


def plots(here, run):
    return sorted(path.name for path in (here / "mlartifacts" / run.info.run_id / "artifacts/plots").iterdir())


MLP = {"factory": "networks.mlp:mlp", "arguments": {"hidden": [16]}}


def numbers(rows, seed):
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(rows, 3)), columns=["a", "b", "c"])
    frame["count"] = random.integers(0, 9, rows)  # whole numbers, which pandas reads as such
    return frame


def test_regression(tracked, pipeline):
    for name, rows in (("train", 300), ("test", 50)):
        frame = numbers(rows, rows)
        frame["y"] = 2 * frame.a - frame.b + frame["count"] + 30
        frame.to_csv(tracked / f"{name}.csv", index=False)
    loss = {"name": "SmoothL1Loss", "arguments": {"beta": 0.5}}
    run, model, rows = pipeline(
        MLP, source="train.csv", test_source="test.csv", target="y", task="regression", loss=loss, lr=0.02
    )
    raw = pd.read_csv(tracked / "test.csv")
    given = model.predict(raw)["prediction"].to_numpy()
    assert np.array_equal(given.astype(np.float32), np.array([row["predicted"] for row in rows], np.float32))
    assert np.allclose([float(row["actual"]) for row in rows], raw.y, rtol=1e-6)
    found = metrics(tracked, run)
    assert found.keys() == {"loss", "mae", "rmse", "r2"}
    assert found["r2"] > 0.9
    assert found["mae"] == pytest.approx(np.abs(given - raw.y).mean(), rel=1e-5)
    assert run.data.params["train.loss.name"] == "SmoothL1Loss"
    assert plots(tracked, run) == ["predictions.png", "residuals.png", "schedule.png", "training.png"]


def test_binary(tracked, pipeline):
    for name, rows in (("train", 300), ("test", 50)):
        frame = numbers(rows, rows)
        frame["ill"] = np.where(frame.a + frame.b > 1, "yes", "no")
        frame.to_csv(tracked / f"{name}.csv", index=False)
    given = {"source": "train.csv", "test_source": "test.csv", "target": "ill", "task": "binary"}
    run, model, rows = pipeline(MLP, **given, loss={"class_weights": "balanced"})
    raw = pd.read_csv(tracked / "test.csv")
    probabilities = served(model, raw, rows)
    assert [row["actual"] for row in rows] == raw.ill.tolist()
    assert np.allclose(probabilities["probability_no"] + probabilities["probability_yes"], 1)
    assert ((probabilities["probability_yes"] > 0.5) == (probabilities["prediction"] == "yes")).all()
    found = metrics(tracked, run)
    assert found.keys() == {"loss", "accuracy", "precision", "recall", "f1", "roc_auc", "average_precision", "ece"}
    assert found["roc_auc"] > 0.95
    intervals = json.loads((tracked / "reports/intervals.json").read_text())["test"]
    assert intervals["loss"]["low"] < found["loss"] < intervals["loss"]["high"]  # also with class weights
    assert plots(tracked, run) == [
        "calibration.png",
        "classes.png",
        "confusion.png",
        "precision_recall.png",
        "roc.png",
        "schedule.png",
        "training.png",
    ]


def pictures(rows, seed):
    """Bytes (rows, 8, 8) and labels: where the bright half is."""
    random = np.random.default_rng(seed)
    labels = (np.arange(rows) % 2).astype(np.uint8)
    images = random.integers(0, 100, (rows, 8, 8))
    images[labels == 0, :4] += 100
    images[labels == 1, 4:] += 100
    return images.astype(np.uint8), labels


CNN = {"factory": "networks.cnn:cnn", "arguments": {"channels": 4}}


def test_idx(tracked, pipeline):
    for name, rows in (("train", 300), ("t10k", 50)):
        for array, kind in zip(pictures(rows, rows), ("images-idx3", "labels-idx1"), strict=True):
            header = struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape)
            (tracked / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    blocks = {"shuffle": "blocks", "block": 16, "window": 3}
    given = {"source": "train-images-idx3-ubyte.gz", "test_source": "t10k-images-idx3-ubyte.gz", "target": "half"}
    run, model, rows = pipeline(CNN, **given, batch=blocks)
    images, labels = pictures(50, 50)
    assert (tracked / "data/batches/train/inputs.npy").stat().st_size < 300 * 64 + 1000  # bytes, on the disk too
    served(model, images[:, None], rows)
    assert [int(row["actual"]) for row in rows] == labels.tolist()
    assert metrics(tracked, run)["accuracy"] > 0.95
    assert str(model.metadata.signature.inputs) == "[Tensor('uint8', (-1, 1, 8, 8))]"


def test_a_folder_of_images(tracked, pipeline):
    from PIL import Image

    sets = {"train": pictures(200, 1), "test": pictures(40, 2)}
    for name, (images, labels) in sets.items():
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            file = tracked / name / f"half {label}" / f"{number:03}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    run, model, rows = pipeline(CNN, source="train", test_source="test", target="half", images={"mode": "L"})
    images, labels = sets["test"]
    in_order = np.argsort(labels, kind="stable")  # a directory after the other
    served(model, images[in_order][:, None], rows)
    assert [row["actual"] for row in rows] == [f"half {label}" for label in labels[in_order]]
    assert metrics(tracked, run)["accuracy"] > 0.95


def test_sequences_of_tokens(tracked, pipeline):
    for name, rows in (("train", 300), ("test", 50)):
        x = np.random.default_rng(rows).integers(0, 20, (rows, 6))
        np.savez(tracked / f"{name}.npz", x=x, y=np.where(x[:, 0] < 10, "low", "high"))
    network = {"factory": "networks.sequence:sequence", "arguments": {"tokens": 20, "width": 8}}
    run, model, rows = pipeline(network, source="train.npz", test_source="test.npz", target="first")
    with np.load(tracked / "test.npz") as raw:
        served(model, raw["x"], rows)
        assert [row["actual"] for row in rows] == raw["y"].tolist()
    assert run.data.params["train.model.arguments.tokens"] == "20"


def customers(rows, seed):
    """All kinds of columns, each with missing values, some rows without a target, a constant, an id, a category only
    here.
    """
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "customer": np.arange(rows) + 1000 * seed,
            "land": "DE",
            "zip": random.choice(["01234", "10115", "80331"], rows),
            "floor": random.integers(0, 4, rows),
            "plan": random.choice(["basic", "pro", f"only {seed}"], rows),
            "active": random.choice([True, False], rows),
            "joined": pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 900, rows), unit="D"),
            "seen": pd.Timestamp("2023-01-01 10:00:00") + pd.to_timedelta(random.integers(0, 10**6, rows), unit="s"),
            "income": random.normal(size=rows).round(3),
        }
    )
    frame["churn"] = np.where((frame.zip == "01234") | (frame.income > 1), "yes", "no")
    for column in ("plan", "active", "joined", "seen", "income", "churn"):
        frame[column] = frame[column].astype(object).where(random.random(rows) > 0.05, None)
    return frame


POLICY = {
    "numeric": "median",
    "boolean": "constant",
    "category": "constant",
    "date": "mean",
    "target": "drop",
    "indicator": True,
}
TABLE = {"factory": "networks.table:table", "arguments": {"embedding": 3, "hidden": [16]}}


def test_a_table_with_embeddings(tracked, pipeline):
    for seed, name, rows in ((1, "train", 400), (2, "test", 80)):
        customers(rows, seed).to_csv(tracked / f"{name}.csv", index=False)
    run, model, rows = pipeline(
        TABLE,
        source="train.csv",
        test_source="test.csv",
        target="churn",
        ignore=["customer", "la*"],
        kinds={"zip": "category", "floor": "category"},
        categories="codes",
        missing=POLICY,
        loss={"class_weights": [1.0, 2.0]},
    )
    text = {"dtype": {"zip": str}}
    raw = pd.read_csv(tracked / "test.csv", **text)
    with_target = raw[raw.churn.notna()]
    assert raw["floor"].dtype == "int64"
    served(model, with_target, rows)
    served(
        model, pd.read_csv(tracked / "test.csv", **text, parse_dates=["joined", "seen"]).loc[with_target.index], rows
    )
    assert [row["actual"] for row in rows] == with_target.churn.tolist()
    dropped = sum(int(customers(rows, seed).churn.isna().sum()) for seed, rows in ((1, 400), (2, 80)))
    assert run.data.tags[DROPPED] == f"{dropped} where 'churn' (the target) is missing"
    assert json.loads(run.inputs.dataset_inputs[0].dataset.profile)["dropped"] == {
        "'churn' (the target) is missing": dropped
    }
    assert [spec.name for spec in model.metadata.signature.inputs] == [
        "zip",
        "floor",
        "plan",
        "active",
        "joined",
        "seen",
        "income",
    ]
    assert metrics(tracked, run)["accuracy"] > 0.8
    # What would silently be another value is refused.
    with pytest.raises(
        Exception, match=r"column 'zip' holds values of type int64, but its categories are texts, such as '01234'"
    ):
        model.predict(pd.read_csv(tracked / "test.csv"))
    with pytest.raises(Exception, match=r"column 'joined' can't be taken as date: .*'soon' is not a date"):
        model.predict(raw.assign(joined="soon"))
    # All of a column may be missing, where one may.
    assert len(model.predict(raw.assign(plan=None, joined=np.nan, active=None, income=None))) == len(raw)


def test_one_hot_and_parquet(tracked, pipeline):
    """Without a file of its own for the test: its rows are found by a number that each has."""
    frame = customers(400, 3).astype({"active": "boolean"})
    frame["mark"] = np.random.default_rng(3).permutation(400) / 4
    frame.to_parquet(tracked / "all.parquet", index=False)
    kinds = {
        "source": "all.parquet",
        "target": "churn",
        "ignore": ["customer", "land", "joined", "seen"],
        "kinds": {"floor": "category"},
    }
    run, model, rows = pipeline(MLP, **kinds, missing=POLICY)
    import pyarrow.parquet as pq

    marks = pq.read_table(tracked / "data/prepared/test.parquet", columns=["mark"]).column("mark").to_pylist()
    raw = pd.read_parquet(tracked / "all.parquet").set_index("mark", drop=False).loc[marks]
    served(model, raw, rows)
    assert [row["actual"] for row in rows] == raw.churn.tolist()
    assert run.data.tags[DROPPED] == f"{frame.churn.isna().sum()} where 'churn' (the target) is missing"


# --- what prepare says


def prepare(here, **keys):
    with (here / "params.yaml").open("w") as file:
        YAML().dump({"prepare": keys, "train": {"model": MLP, "epochs": 1, "lr": 0.1}}, file)
    return here.stage("prepare")


def test_a_pattern_may_mean_columns_that_are_not_read(here):
    frame = customers(200, 1).drop(columns=["joined", "seen"])
    frame.to_csv(here / "raw.csv", index=False)
    frame.to_parquet(here / "raw.parquet", index=False)
    for source in ("raw.csv", "raw.parquet"):
        done = prepare(here, source=source, target="churn", ignore=["customer", "la*"], missing=POLICY)
        assert done.code == 0, done
        assert "prepared " in done.out
        message = prepare(here, source=source, target="churn", ignore=["customer", "lo*"], missing=POLICY).refused()
        assert "prepare.ignore: 'lo*' matches no column; it has customer, land, zip" in message


def test_a_column_may_have_brackets_in_its_name(here):
    frame = numbers(60, 1).rename(columns={"a": "a[1]"}).assign(kind=["x", "y"] * 30)
    frame.to_csv(here / "raw.csv", index=False)
    assert "1 input," in prepare(here, source="raw.csv", target="kind", columns=["a[1]"]).out


def test_what_dvc_does_not_watch_is_told(here):
    (here / "elsewhere/a").mkdir(parents=True)
    raw = here / "data/raw"
    raw.mkdir(parents=True)
    numbers(60, 1).assign(kind=["x", "y"] * 30).to_csv(here / "elsewhere/a/raw.csv", index=False)
    (raw / "linked.csv").symlink_to(here / "elsewhere/a/raw.csv")
    (raw / "a").symlink_to(here / "elsewhere/a")
    told = "DVC doesn't watch {}, so it won't run prepare again when that changes: "
    for source in (
        "elsewhere/a/raw.csv",
        str(here / "elsewhere/a/raw.csv"),
        "data/raw/a/raw.csv",
        "data/raw/a",
        "data/raw/../../elsewhere/a",
    ):
        done = prepare(here, source=source, target="kind")
        assert done.out.splitlines()[-1].startswith(told.format(source)), done
    assert "DVC" not in prepare(here, source="data/raw/linked.csv", target="kind").out
    assert "DVC" not in prepare(here, source="sklearn:wine", target="kind").out
    (here / "elsewhere/b").mkdir()
    first, *rows = (here / "elsewhere/a/raw.csv").read_text().splitlines()
    (here / "elsewhere/b/raw.csv").write_text("\n".join([first, *rows[:50]]))
    message = prepare(here, source="data/raw/linked.csv", test_source="elsewhere/b/raw.csv", target="kind").out
    assert told.format("elsewhere/b/raw.csv") in message
    assert (
        "50 of the 50 rows of elsewhere/b/raw.csv (prepare.test_source) are also among those of data/raw/linked.csv"
        in message
    )


def test_numbers_with_a_slip_are_told(here):
    frame = numbers(100, 1).assign(kind=["x", "y"] * 50).astype({"a": object})
    frame.loc[3, "a"] = "off"
    frame.to_csv(here / "raw.csv", index=False)
    frame.astype({"a": str}).to_parquet(here / "raw.parquet")
    for source, row in (("raw.csv", 5), ("raw.parquet", 4)):
        message = prepare(here, source=source, target="kind").refused()
        assert (
            f"{source}: row {row}, column 'a': 'off' is not a number, as almost all of the others are\ntexts among its"
            " numbers" in message
        )
        assert "or prepare.kinds: {a: category} where the column holds no numbers" in message
        assert (
            f"{source}: row {row}, column 'a': 'off' is not a number"
            in prepare(here, source=source, target="kind", kinds={"a": "numeric"}).refused()
        )
    message = prepare(here, source="raw.parquet", target="kind", max_categories=50).refused()
    assert (
        "almost all are numbers: mend 'off', or name it in prepare.missing.values, and set prepare.kinds: {a: numeric}"
        in message
    )
    missing = {"numeric": "mean", "values": ["off"]}
    assert "4 inputs" in prepare(here, source="raw.csv", target="kind", missing=missing).out


def test_an_error_in_the_midst_of_a_large_file_ends_the_process_as_any(here):
    """The file is still being read by another thread then."""
    row = "1.5,x," + "text " * 40 + "\n"
    (here / "raw.csv").write_text("a,kind,text\n" + 20 * row + row.replace("1.5", "") + 60_000 * row)
    prepare(here, source="raw.csv", target="kind").refused()
    for _ in range(4):
        done = subprocess.run(
            [sys.executable, "-m", "surefoot.stages.prepare"],
            cwd=here.path,
            env={"PYTHONPATH": str(PROJECT / "src")},
            capture_output=True,
            text=True,
            timeout=60,
        )
        told = (
            "error: raw.csv: row 22, column 'a': empty; a number is needed in every row (or another policy,"
            " prepare.missing.numeric)\n"
        )
        assert (done.returncode, done.stderr) == (2, told)


# --- the same values mean the same everywhere


def as_people_write(rows):
    """An index without a name, ? for what is missing, $ and thousands, per cent; what decides the class is in each."""
    random = np.random.default_rng(0)
    strength = random.integers(50, 250, rows)
    frame = pd.DataFrame(
        {
            "": range(rows),
            "strength": strength.astype(object),
            "price": [f"${value:,.2f}" for value in strength * 37.5],
            "share": [f"{value / 10}%" for value in strength],
            "colour": random.choice(["red", " red", "blue", "?"], rows),
            "kind": np.where(strength > 150, "high", "low"),
        }
    )
    frame.loc[::13, "strength"] = "?"
    return frame


@pytest.mark.parametrize("columns", [None, ["", "strength", "price", "share", "colour"]])
def test_texts_mean_the_same_to_prepare_predict_and_the_model_in_mlflow(tracked, pipeline, columns):
    as_people_write(240).to_csv(tracked / "raw.csv", index=False)
    keys = {"columns": columns, "csv": {"thousands": ","}, "missing": {"numeric": "mean", "category": "constant"}}
    _, model, _ = pipeline(MLP, source="raw.csv", target="kind", **keys)
    assert len(json.loads((tracked / "data/prepared/schema.json").read_text())["features"]) == (5 if columns else 4)
    write_predictions(tracked / "raw.csv", tracked / "out.csv")
    predicted = pd.read_csv(tracked / "out.csv")
    assert predicted["colour"].tolist() == pd.read_csv(tracked / "raw.csv")["colour"].tolist(), (
        "written as they were given"
    )
    raw = pd.read_csv(tracked / "raw.csv")
    assert "Unnamed: 0" in raw, "pandas' name of what has none"
    plain = raw.replace("?", np.nan).assign(
        strength=lambda frame: frame["strength"].astype(float),
        price=lambda frame: frame["price"].str.replace("[$,]", "", regex=True).astype(float),
        share=lambda frame: frame["share"].str.rstrip("%").astype(float),
        colour=lambda frame: frame["colour"].str.strip(),
    )
    for frame in (raw, plain):
        given = model.predict(frame)
        assert np.abs(given["probability_high"] - predicted["probability_high"]).max() < 1e-6
    with pytest.raises(Exception, match="column 'price': '5 EUR' is not a number"):
        model.predict(raw.assign(price="5 EUR"))


def test_categories_with_the_look_of_something_else_are_told(here):
    rows = pd.DataFrame(
        {
            "weight": [f"{n % 30} kg" for n in range(120)],
            "month": [f"{2000 + n % 20}-{n % 12 + 1:02d}" for n in range(120)],
        }
    )
    rows = rows.assign(
        quarter=[f"Q{n % 4}" for n in range(120)],
        film=[f"{n % 20} days of {2000 + n % 20}" for n in range(120)],
        kind=["x", "y"] * 60,
    )
    rows.to_csv(here / "raw.csv", index=False)
    done = prepare(here, source="raw.csv", target="kind")
    assert [line for line in done.out.splitlines() if "taken as" in line] == [
        (
            "note: raw.csv: taken as a category, though its values are numbers with something behind, as 25 kg is:"
            " 'weight' (prepare.kinds: numeric reads them as numbers)"
        ),
        (
            "note: raw.csv: taken as a category, though its values have the look of dates: 'month' (prepare.dates: a"
            " format of strptime's reads them as such)"
        ),
    ]
    done = prepare(here, source="raw.csv", target="kind", kinds={"weight": "numeric"}, dates={"month": "%Y-%m"})
    assert "numeric: 'weight' (written with kg)" in done.out
    assert "date: 'month' (written with %Y-%m)" in done.out


def test_prepare_says_what_it_took_each_column_for(here):
    frame = as_people_write(240).assign(
        doors=["2", "3", "4", "5more"] * 60, zip=[f"0{number % 9}12" for number in range(240)], none=None, land="DE"
    )
    frame.to_csv(here / "raw.csv", index=False)
    done = prepare(
        here,
        source="raw.csv",
        target="kind",
        csv={"thousands": ","},
        missing={"numeric": "mean", "category": "constant"},
    )
    assert done.code == 0, done
    assert done.out.splitlines()[:9] == [
        "preparing raw.csv",
        (
            "note: raw.csv: left out, taken for an index: '' (no name, or one that pandas gives; prepare.columns takes"
            " what it names)"
        ),
        "note: raw.csv: empty in every training row: 'none' (prepare.ignore leaves a column out)",
        (
            "note: raw.csv: the same value in every training row, from which nothing is learned: 'land' (prepare.ignore"
            " leaves a column out)"
        ),
        (
            "note: raw.csv: taken as numbers, though some begin with 0, as codes do: 'zip' (prepare.kinds: category"
            " keeps them as they are)"
        ),
        (
            "note: raw.csv: taken as a category, though most of its values are numbers: 'doors' (prepare.kinds:"
            " numeric, or prepare.missing.values)"
        ),
        "numeric: 'strength', 'price' (written with $), 'share' (written with %), 'zip', 'none'",
        "category: 'colour' (2 values: blue, red), 'doors' (4 values: 2, 3, 4, ...), 'land' (1 value: DE)",
        f"missing values: 19 in 'strength' ('?'), {(frame['colour'] == '?').sum()} in 'colour' ('?'), 240 in 'none'",
    ]
