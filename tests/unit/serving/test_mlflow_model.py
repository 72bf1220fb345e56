"""The logged model as a server has it, and a model's directory that is damaged or hostile: it runs nothing, and says
what is wrong.
"""

import io
import json
import math
import pickle
import shutil
import threading
from contextlib import closing, contextmanager, suppress

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from surefoot.base import paths, writing
from surefoot.base.errors import UserError
from surefoot.commands.predict.command import write_predictions
from surefoot.data.batch_store import open_store
from surefoot.params.params_yaml import load_params
from surefoot.serving import logged_network, predictor
from surefoot.training import network as networks
from tests.docs.test_data import ran
from tests.helpers import PROJECT
from tests.served import Connection, check, free_port, network_says

MARK = "it-ran"


@contextmanager
def app(model):
    """The application that `mlflow models serve` starts, over a real connection."""
    import uvicorn
    from mlflow.pyfunc.scoring_server import init

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(init(model), host="127.0.0.1", port=port, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with closing(Connection(port)) as connection:
            while not connection.answers():
                assert thread.is_alive()
            yield connection
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def logged(tracked, monkeypatch):
    """Runs the stages; returns the model as MLflow loads it, the store and what the network says of the test rows."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tracked / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

    def run(text):
        (tracked / "params.yaml").write_text(
            text + "train: {model: {factory: networks.mlp:mlp, arguments: {hidden: [8], dropout: 0.5}}, epochs: 3, lr:"
            " 0.05}\n"
        )
        for stage in ("prepare", "batch", "train"):
            ran(tracked, stage)
        import mlflow.pyfunc

        (found,) = tracked.runs()
        model = mlflow.pyfunc.load_model(f"models:/{found.data.tags['surefoot.model_id']}")
        store = open_store(paths.BATCHES)
        return model, store, network_says(store, load_params(paths.PARAMS).train.model, paths.MODEL.read_bytes())

    return run


TABLE = """\
prepare:
  source: train.csv
  test_source: test.csv
  target: churn
  kinds: {zip: category}
  missing: {numeric: median, category: constant, date: mean, indicator: true}
"""


def write_table(path, rows, seed):
    """Categories of digits, dates, times of a zone, missing values, and in the test rows a category that wasn't in
    training.
    """
    random = np.random.default_rng(seed)
    lines = ["zip,plan,income,joined,seen,active,churn"]
    for row in range(rows):
        income = "" if row % 7 == 0 else f"{random.lognormal(8, 1):.2f}"
        joined = "" if row % 9 == 0 else f"20{row % 20:02}-0{1 + row % 9}-1{row % 10}"
        plan = ["basic", "pro", "", "new"][row % (4 if path.name.startswith("test") else 3)]
        lines.append(
            f"0{random.integers(1000, 1004)},{plan},{income},{joined},2024-05-01T{row % 24:02}:30:00Z,"
            f"{str(row % 2 == 0).lower()},{'yn'[row % 2]}"
        )
    path.write_text("\n".join(lines) + "\n")


def test_a_table_with_categories_dates_and_missing_values(tracked, logged):
    write_table(tracked / "train.csv", 200, 0)
    write_table(tracked / "test.csv", 60, 1)
    model, store, said = logged(TABLE)
    texts = pd.read_csv(tracked / "test.csv", dtype=str, keep_default_na=False).drop(columns=["churn"])
    rows = [
        {
            name: (
                None
                if value == ""
                else float(value)
                if name == "income"
                else value == "true"
                if name == "active"
                else value
            )
            for name, value in row.items()
        }
        for row in texts.to_dict("records")
    ]
    with app(model) as server:
        check(server.predictions({"dataframe_records": rows}), store, said)
        check([server.predictions({"dataframe_records": [row]})[0] for row in rows[:20]], store, said[:20])
        status, answer = server.post({"dataframe_records": [{**rows[0], "joined": "tomorrow"}]})
    assert status == 400
    assert "column 'joined' can't be taken as date" in answer["message"]


def forms(rows):
    """The same rows in each form that MLflow's server takes: body and type."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    split = {"columns": list(columns), "data": [list(row.values()) for row in rows]}
    json_ = {
        "dataframe_split": split,
        "dataframe_split with an index": split | {"index": [str(number) for number in range(len(rows))]},
        "dataframe_records": rows,
        "instances": rows,
        "instances by column": columns,
        "inputs": columns,
        "inputs by row": rows,
    }
    found = {name: ({name.partition(" ")[0]: body}, "application/json") for name, body in json_.items()}
    parquet = io.BytesIO()
    with suppress(pa.ArrowInvalid, pa.ArrowTypeError):  # a column of numbers and texts has no place in it
        pd.DataFrame(rows).to_parquet(parquet)
        found["parquet"] = (parquet.getvalue(), "application/vnd.apache.parquet")
    return found | {
        "csv": (pd.DataFrame(rows).to_csv(index=False), "text/csv"),
        "csv with an index": (pd.DataFrame(rows).to_csv(), "text/csv; charset=utf-8"),
    }


def raw_rows(path):
    """Rows of `write_table` as a user's program has them."""
    texts = pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns=["churn"])
    as_ = {"income": float, "active": lambda text: text == "true"}
    return [
        {name: None if value == "" else as_.get(name, str)(value) for name, value in row.items()}
        for row in texts.to_dict("records")
    ]


def test_each_form_gives_the_same_answers(tracked, logged):
    write_table(tracked / "train.csv", 200, 0)
    write_table(tracked / "test.csv", 60, 1)
    model, store, said = logged(TABLE)
    rows = raw_rows(tracked / "test.csv")
    optional = ("zip", "plan", "income", "joined", "seen")
    with app(model) as server:
        for body in forms(rows).values():
            check(server.predictions(*body), store, said)
        for body in forms(rows[:1]).values():
            check(server.predictions(*body), store, said[:1])
        # What may be missing may be left out of all rows.
        for name in optional:
            lacking = [{key: value for key, value in row.items() if key != name} for row in rows]
            empty = server.predictions({"dataframe_records": [row | {name: None} for row in rows]})
            for body in forms(lacking).values():
                assert server.predictions(*body) == empty
        assert server.predictions({"dataframe_split": {"columns": list(rows[0]), "data": []}}) == []
        assert server.predictions(",".join(rows[0]) + "\n", "text/csv") == []
        status, answer = server.post(
            {"dataframe_records": [{key: value for key, value in row.items() if key != "active"} for row in rows]}
        )
        assert status == 400
        assert "Model is missing inputs ['active']" in answer["message"]


# Each: a column, and a value that prepare, predict and a server refuse.
REFUSED = [
    *(("income", value) for value in (math.inf, -math.inf, 1e39, "much")),
    *(("active", value) for value in (7, 0.5, "perhaps", None)),
]


def test_what_predict_refuses_a_server_refuses(tracked, logged):
    write_table(tracked / "train.csv", 200, 0)
    write_table(tracked / "test.csv", 60, 1)
    model, _, _ = logged(TABLE)
    good = raw_rows(tracked / "test.csv")[1:3]
    with app(model) as server:
        for column, value in REFUSED:
            rows = [good[0], good[1] | {column: value}]
            for body in forms(rows).values():
                status, answer = server.post(*body)
                assert status == 400, (column, value, body)
                assert f"column {column!r}" in answer["message"], (column, value, body)
            pd.DataFrame(rows).to_csv(tracked / "new.csv", index=False)
            with pytest.raises(UserError, match=f"column {column!r}"):
                write_predictions(tracked / "new.csv", tracked / "out.csv")
        for flag in (1, 1.0, "TRUE", " true "):
            assert server.predictions({"dataframe_records": [good[0] | {"active": flag}]}) == server.predictions(
                {"dataframe_records": [good[0] | {"active": True}]}
            )


def test_columns_of_texts_alone(tracked, logged):
    """Of them MLflow makes one row of lists, where they come by column."""
    lines = [f"{'pq'[row % 2]},{'xyz'[row % 3]},{'ab'[row % 2]}" for row in range(120)]
    for name, some in (("train", lines), ("test", lines[:30])):
        (tracked / f"{name}.csv").write_text("\n".join(["c,d,kind", *some]) + "\n")
    model, store, said = logged("prepare: {source: train.csv, test_source: test.csv, target: kind}\n")
    rows = pd.read_csv(tracked / "test.csv").drop(columns="kind").to_dict("records")
    with app(model) as server:
        for body in forms(rows).values():
            check(server.predictions(*body), store, said)
        status, answer = server.post({"inputs": {"c": ["p", "q"], "d": ["x"]}})
    assert status == 400
    assert "columns have different numbers of rows: 'c' 2, 'd' 1" in answer["message"]


def test_rows_without_a_column_of_the_models_are_refused(tracked, logged):
    write_table(tracked / "train.csv", 200, 0)
    write_table(tracked / "test.csv", 60, 1)
    model, _, _ = logged(TABLE.replace("  kinds:", "  ignore: [active]\n  kinds:"))  # so that each may be missing
    row = raw_rows(tracked / "test.csv")[0]
    with app(model) as server:
        assert len(server.predictions({"inputs": [{"income": row["income"]}]})) == 1
        for body in (
            {"inputs": [{"Income": 3}]},
            {"instances": [list(row.values())]},
            {"dataframe_split": {"data": [list(row.values())]}},
        ):
            status, answer = server.post(body)
            assert status == 400
            assert "none of the model's columns is there: zip, plan, income, joined, seen" in answer["message"]


def test_requests_at_once_disturb_no_other(tracked, logged):
    """A network with dropout: in training mode, no two answers would be the same."""
    tracked.csv(300)
    pd.read_csv(tracked / "raw.csv").iloc[::-1].to_csv(tracked / "test.csv", index=False)
    model, store, said = logged("prepare: {source: raw.csv, test_source: test.csv, target: kind}\n")
    rows = pd.read_csv(tracked / "test.csv").drop(columns=["kind"]).to_dict("records")
    answers = {}
    with app(model) as server:
        port = server._http.port

        def ask(number):
            with closing(Connection(port)) as connection:
                answers[number] = [connection.predictions({"dataframe_records": rows}) for _ in range(5)]

        threads = [threading.Thread(target=ask, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answers) == 4
    for given in answers.values():
        for predictions in given:
            check(predictions, store, said)


def test_a_regression(tracked, logged, monkeypatch):
    looked = []  # through the files of every package
    monkeypatch.setattr("mlflow.utils.requirements_utils._MODULES_TO_PACKAGES", None)
    monkeypatch.setattr("importlib_metadata.packages_distributions", lambda: looked.append(1) or {})
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(200, 3)), columns=["a", "b", "c"])
    frame["y"] = frame.a - 2 * frame.b + 30
    frame.to_csv(tracked / "train.csv", index=False)
    frame[100:].to_csv(tracked / "test.csv", index=False)
    model, store, said = logged("prepare: {source: train.csv, test_source: test.csv, target: y, task: regression}\n")
    assert not looked
    with app(model) as server:
        check(
            server.predictions({"dataframe_records": frame[100:].drop(columns=["y"]).to_dict("records")}), store, said
        )


# --- a model's directory, as it shouldn't be -------------------------------------------------------


class Evil:
    def __reduce__(self):
        from pathlib import Path

        return Path.touch, (Path(MARK),)


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model's directory as MLflow has it, but for what it writes itself: code, and data/network."""
    monkeypatch.chdir(tmp_path)
    network = tmp_path / "model/data/network"
    network.mkdir(parents=True)
    shutil.copytree(PROJECT / "src/networks", tmp_path / "model/code/networks")
    built = networks.build("networks.mlp:mlp", {"hidden": [3]}, (2,), 2, seed=0)
    (network / "model.safetensors").write_bytes(networks.to_bytes(built.state_dict()))
    feature = {"kind": "numeric", "fill": None, "indicator": False, "subtract": [0.0], "divide": [1.0], "width": 1}
    features = [{"column": name, **feature, "first": first, "names": [name]} for first, name in enumerate("ab")]
    description = {
        "factory": "networks.mlp:mlp",
        "arguments": {"hidden": [3]},
        "task": "classification",
        "classes": ["x", "y"],
    }
    writing.write_json(
        network / "description.json", description | {"input_shape": [2], "features": features, "scale": None}
    )
    return network


def says(model, *what):
    with pytest.raises(UserError) as told:
        logged_network.load_logged_network(model)
    assert len(str(told.value).splitlines()) == 1
    for text in what:
        assert text in str(told.value)
    assert not (model.parents[2] / MARK).exists(), "something ran"


def test_as_it_should_be(model):
    given = predictor.Predictor(*logged_network.load_logged_network(model)).predict(
        pd.DataFrame({"a": [1.0, 2.0], "b": [0, 1]})
    )
    assert list(given) == ["prediction", "probability_x", "probability_y"]


WEIGHTS = {
    "nothing": (lambda good: b"", "isn't a safetensors file"),
    "cut short": (lambda good: good[:-5], "isn't a safetensors file, or is cut short"),
    "a header without an end": (lambda good: b"\xff" * 8 + good[8:], "isn't a safetensors file"),
    "a header that lies": (
        lambda good: good.replace(b'"data_offsets":[0', b'"data_offsets":[9'),
        "isn't a safetensors file",
    ),
    "a pickle": (lambda good: pickle.dumps(Evil()), "isn't a safetensors file"),
    "of another network": (
        lambda good: networks.to_bytes(networks.build("networks.mlp:mlp", {}, (2,), 2, 0).state_dict()),
        "of another network",
    ),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(model, name):
    change, told = WEIGHTS[name]
    file = model / "model.safetensors"
    file.write_bytes(change(file.read_bytes()))
    says(model, "model.safetensors", told)


def test_weights_that_torch_would_unpickle(model):
    import torch

    torch.save({"weights": Evil()}, model / "model.safetensors")
    says(model, "model.safetensors", "isn't a safetensors file")


@pytest.mark.parametrize("name", ["model.safetensors", "description.json"])
def test_files_that_are_missing_or_no_files(model, name):
    (model / name).unlink()
    says(model, name, "can't be read: No such file")
    (model / name).mkdir()
    says(model, name, "can't be read: it is a directory")


DESCRIPTIONS = {
    "no JSON": ("{", "isn't a model's description"),
    "no mapping": ("[]", "isn't a model's description"),
    "nested without end": ('{"arguments": ' + "[" * 100_000, "isn't a model's description"),
    "a pickle": (pickle.dumps(Evil()), "isn't a model's description"),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_descriptions_that_are_none(model, name):
    text, told = DESCRIPTIONS[name]
    (model / "description.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    says(model, "description.json", told)


CHANGES = {
    "a system call": (
        {"factory": "os:system", "arguments": {"command": f"touch {MARK}"}},
        "no module 'os' of the user's",
    ),
    "a command": (
        {"factory": "subprocess:run", "input_shape": [1], "arguments": {"args": ["touch", MARK]}},
        "no module 'subprocess'",
    ),
    "code of Surefoot's": (
        {"factory": "surefoot.base.writing:write_bytes", "arguments": {"path": MARK}},
        "no module 'surefoot' of the user's",
    ),
    "a path": ({"factory": "../../evil:build"}, "factory: String should match pattern"),
    "no function": ({"factory": "networks.mlp:nothing"}, "module networks.mlp has no 'nothing'"),
    "no factory": ({"factory": None}, "factory"),
    "a shape of texts": ({"input_shape": ["touch", MARK]}, "input_shape.0"),
    "a shape without end": ({"input_shape": [10**30]}, "input_shape.0"),
    "more memory than there is": ({"arguments": {"hidden": [10**12]}}, "failed"),
    "a scale of one half": ({"target_scale": {"subtract": [1.0]}}, "target_scale"),
    "a scale of two numbers": ({"target_scale": {"subtract": [1.0, 2.0], "divide": [1.0]}}, "target_scale.subtract"),
    "a scale that isn't finite": (
        {"scale": None, "target_scale": {"subtract": [1.0], "divide": [1e999]}},
        "isn't a model's description",
    ),
    "classes that are numbers": ({"classes": [1, 2]}, "classes.0"),
    "no features": ({"features": []}, "features"),
    "a feature of no kind": (
        {"features": [{"column": "a", "kind": "code", "first": 0, "width": 1}]},
        "features.0.kind",
    ),
    "a feature out of place": (
        {"features": [{"column": "a", "kind": "numeric", "first": -1, "width": 1}]},
        "features.0.first",
    ),
    "objects in an array": (
        {"features": [{"column": "a", "kind": "array", "first": 0, "width": 1, "dtype": "object"}]},
        "features.0.dtype",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_descriptions_that_want_something_else(model, name):
    change, told = CHANGES[name]
    file = model / "description.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    says(model, told)


# --- the same values, however they come ------------------------------------------------------------

DATES = """\
prepare:
  source: train.parquet
  test_source: test.parquet
  target: kind
  kinds: {year: category}
  missing: {numeric: mean, category: constant}
"""


def dated(rows, seed):
    """Instants in a zone, days as Americans write them, times without a leading 0, and years that are categories."""
    random = np.random.default_rng(seed)
    at = pd.Timestamp("2024-03-29", tz="UTC") + pd.to_timedelta(random.integers(0, 4 * 24 * 60, rows), unit="min")
    days = pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 1500, rows), unit="D")
    return pd.DataFrame(
        {
            "at": at.tz_convert("Europe/Berlin"),
            "day": [f"{day:%m/%d/%Y}" for day in days],
            "opens": [
                f"{hour}:{minute:02}"
                for hour, minute in zip(random.integers(0, 24, rows), random.integers(0, 60, rows), strict=True)
            ],
            "year": random.integers(2005, 2009, rows),
            "kind": np.where(at.hour >= 12, "late", "early"),
        }
    )


def test_dates_and_years_mean_the_same_from_everywhere(tracked, logged):
    dated(400, 0).to_parquet(tracked / "train.parquet")
    frame = dated(80, 1)
    frame.to_parquet(tracked / "test.parquet")
    model, store, said = logged(DATES)
    frame = frame.drop(columns=["kind"])
    texts = frame.assign(at=[at.isoformat() for at in frame["at"]])
    elsewhere = frame.assign(
        at=frame["at"].dt.tz_convert("Asia/Kolkata"),
        day=pd.to_datetime(frame["day"]),
        opens=pd.to_datetime(frame["opens"], format="%H:%M").dt.time,
    )
    iso = texts.assign(
        at=[f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in frame["at"].dt.tz_convert("UTC")],
        day=[f"{day:%Y-%m-%d}" for day in elsewhere["day"]],
    )
    as_floats = pd.concat([frame, frame.iloc[:1].assign(year=np.nan)], ignore_index=True)
    assert as_floats["year"].dtype == "float64"
    for rows in (
        frame,
        frame.assign(at=frame["at"].dt.tz_convert("UTC")),
        elsewhere,
        texts,
        iso,
        frame.astype({"year": str}),
    ):
        check(model.predict(rows).to_dict("records"), store, said)
    check(model.predict(as_floats).iloc[:80].to_dict("records"), store, said)
    with app(model) as server:
        check(server.predictions({"dataframe_records": iso.to_dict("records")}), store, said)
        check(
            server.predictions(
                {
                    "dataframe_split": json.loads(
                        as_floats.assign(at=as_floats["at"].astype(str)).to_json(orient="split")
                    )
                }
            )[:80],
            store,
            said,
        )
    ways = {
        "utc.parquet": frame.assign(at=frame["at"].dt.tz_convert("UTC")),
        "else.parquet": elsewhere,
        "texts.csv": texts,
        "iso.csv": iso,
        "floats.csv": as_floats,
    }
    for name, rows in ways.items():
        (rows.to_parquet if name.endswith("parquet") else rows.to_csv)(tracked / name, index=False)
        write_predictions(tracked / name, tracked / f"out-{name}.csv")
        check(pd.read_csv(tracked / f"out-{name}.csv").iloc[:80].to_dict("records"), store, said)
    naive = frame.assign(at=frame["at"].dt.tz_localize(None))
    with pytest.raises(
        Exception, match=r"column 'at' can't be taken as date: in row 0 .* has no time zone, and the others have one"
    ):
        model.predict(naive)
    naive.to_csv(tracked / "naive.csv", index=False)
    with pytest.raises(
        UserError,
        match=(
            r"naive.csv: row 2, column 'at': .* has no time zone, and the others have one: write them with their"
            r" distance from UTC"
        ),
    ):
        write_predictions(tracked / "naive.csv", tracked / "out.csv")


FRAMES = """\
prepare:
  source: train.parquet
  test_source: test.parquet
  target: kind
  missing: {numeric: mean, category: constant, date: mean, boolean: constant}
"""


def framed(rows, seed):
    """A frame of pandas' own types: nullable ones, categories, instants, and an index with a name."""
    random = np.random.default_rng(seed)
    x = random.normal(size=rows)
    return pd.DataFrame(
        {
            "x": pd.array(x, "Float64"),
            "n": pd.array([None if number % 9 == 4 else number % 5 for number in range(rows)], "Int64"),
            "flag": pd.array([None if number % 7 == 3 else number % 2 == 0 for number in range(rows)], "boolean"),
            "town": pd.Categorical([["Rome", "Oslo", None][number % 3] for number in range(rows)]),
            "text": pd.array([["p", "q", None][number % 3] for number in range(rows)], "string"),
            "at": pd.Timestamp("2024-01-01") + pd.to_timedelta(random.integers(0, 9999, rows), unit="h"),
            "kind": np.where(x > 0, "up", "down"),
        },
        index=pd.Index(random.permutation(rows), name="id"),
    )


@pytest.mark.parametrize("backend", ["numpy_nullable", "pyarrow", None])
def test_the_frame_that_pandas_reads_is_one_that_the_model_takes(tracked, logged, backend):
    framed(200, 0).to_parquet(tracked / "train.parquet")
    framed(60, 1).to_parquet(tracked / "test.parquet")
    model, store, said = logged(FRAMES)
    assert "id" not in [feature["column"] for feature in store.index.features]
    frame = pd.read_parquet(tracked / "test.parquet", **({"dtype_backend": backend} if backend else {}))
    assert frame.index.name == "id"
    for rows in (frame, frame.reset_index(drop=True), frame.reset_index(), frame.drop(columns="kind")):
        check(model.predict(rows).to_dict("records"), store, said)


def test_the_frame_of_embeddings_that_pandas_reads_is_one_that_the_model_takes(tracked, logged):
    random = np.random.default_rng(0)
    for name, rows in (("train", 90), ("test", 30)):
        values = random.normal(size=(rows, 6)).astype(np.float32)
        frame = pd.DataFrame(
            {"embedding": list(values), "kind": np.where(values[:, 0] > 0, "up", "down")},
            index=pd.Index(range(5, 5 + rows), name="id"),
        )
        frame.to_parquet(tracked / f"{name}.parquet")
    model, store, said = logged(FRAMES)
    frame = pd.read_parquet(tracked / "test.parquet")
    for rows in (np.stack(frame["embedding"]), frame[["embedding"]].reset_index(drop=True)):
        check(model.predict(rows).to_dict("records"), store, said)
