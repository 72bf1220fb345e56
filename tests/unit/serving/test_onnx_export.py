"""`train.onnx`: the chosen network as an ONNX file.

What needs the extra is skipped without it: `pip install -e '.[onnx]'`.
"""

import csv
import importlib.util
import json

import numpy as np
import pytest

from surefoot.base.errors import UserError
from surefoot.data.batch_store import open_store
from surefoot.serving import mlflow_model, onnx_export
from surefoot.training import network as networks
from surefoot.training.minibatches import Stored
from tests.docs.test_data import ran
from tests.pipeline.test_trajectory import set_train

LACKING = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
installed = pytest.mark.skipif(
    bool(LACKING), reason=f"the extra `onnx` isn't installed ({', '.join(LACKING)}): pip install -e '.[onnx]'"
)


@pytest.fixture
def project(tracked, monkeypatch):
    tracked.csv()
    for stage in ("prepare", "batch"):
        ran(tracked, stage)
    monkeypatch.setattr(mlflow_model, "log_model", lambda run_id, *_: f"model of {run_id}")
    set_train(tracked, onnx="true")
    return tracked


def test_without_the_extra_it_is_refused_before_training(project, monkeypatch):
    monkeypatch.setattr(onnx_export, "PACKAGES", ("onnx_of_nobody", "torch", "onnxscript_of_nobody"))
    assert (
        "train.onnx: true needs onnx_of_nobody and onnxscript_of_nobody: .venv/bin/python -m pip install --constraint"
        " requirements.txt -e '.[onnx]'; or set it to false" in project.stage("train").refused()
    )
    assert not project.runs()
    assert "models/model.safetensors" not in project.files()


@installed
@pytest.mark.slow
def test_the_run_has_the_chosen_network_as_onnx(project):
    import onnxruntime

    ran(project, "train")
    (run,) = project.runs()
    directory = project / "mlartifacts" / run.info.run_id / "artifacts/onnx"
    store = open_store(project / "data/batches")
    model = networks.build("networks.mlp:mlp", {"hidden": [5]}, store.input_shape, 3, 0)
    networks.load_weights(model, (project / "models/model.safetensors").read_bytes())
    session = onnxruntime.InferenceSession(str(directory / "model.onnx"), providers=["CPUExecutionProvider"])
    inputs = np.array(store.test.inputs)
    (given,) = session.run(None, {"input": inputs})
    assert np.abs(given - networks.outputs_of(model, Stored(inputs)).numpy()).max() < 1e-5
    described = json.loads((directory / "description.json").read_text())
    assert described["classes"] == ["x", "y", "z"]
    assert described["features"] == store.index.features
    data = (directory / "model.onnx").read_bytes()
    for place in (b".py", str(project.path).encode(), b"site-packages"):
        assert place not in data
    # Done is done.
    time = (directory / "model.onnx").stat().st_mtime_ns
    ran(project, "train")
    assert (directory / "model.onnx").stat().st_mtime_ns == time


@installed
@pytest.mark.slow
def test_a_network_that_torch_can_not_export_is_told_before_training(project):
    (project / "params.yaml").write_text(
        (project / "params.yaml")
        .read_text()
        .replace("networks.mlp:mlp", "tests.unit.training.networks_for_tests:unexportable")
    )
    set_train(project, onnx="true")
    said = project.stage("train").refused()
    assert "train.onnx: torch can't export this network: " in said
    assert not project.runs()


@installed
@pytest.mark.slow
def test_a_number_comes_in_its_own_unit(tracked):
    import onnxruntime

    rows = [f"{number / 7},{number * number % 11},{1.6e9 + number / 50}\n" for number in range(60)]
    (tracked / "raw.csv").write_text("".join(["a,b,kind\n", *rows]))
    params = (tracked / "params.yaml").read_text()
    (tracked / "params.yaml").write_text(params.replace("  target: kind\n", "  target: kind\n  task: regression\n"))
    set_train(tracked, onnx="true")
    for stage in ("prepare", "batch", "train", "evaluate"):
        ran(tracked, stage)
    (run,) = tracked.runs()
    session = onnxruntime.InferenceSession(
        str(tracked / "mlartifacts" / run.info.run_id / "artifacts/onnx/model.onnx"), providers=["CPUExecutionProvider"]
    )
    (given,) = session.run(None, {"input": np.array(open_store(tracked / "data/batches").test.inputs)})
    with (tracked / "reports/predictions.csv").open(newline="") as file:
        said = [float(row["predicted"]) for row in csv.DictReader(file)]
    assert given.dtype == np.float64
    assert given[:, 0] == pytest.approx(said, abs=1e-5, rel=0)  # float32 would be off by up to 64


def description(factory, arguments, features, shape, **more):
    return {
        "factory": factory,
        "arguments": arguments,
        "task": "classification",
        "classes": ["x", "y"],
        "input_shape": shape,
        "features": features,
    } | {
        "scale": None,
        **more,
    }


def array(dtype, width):
    return [
        {
            "column": "input",
            "kind": "array",
            "dtype": dtype,
            "first": 0,
            "width": width,
            "fill": None,
            "subtract": None,
            "divide": None,
        }
    ]


CATEGORY = {
    "column": "c",
    "kind": "category",
    "fill": None,
    "values": ["p", "q"],
    "encode": "codes",
    "first": 0,
    "width": 1,
}
NUMBER = {
    "column": "n",
    "kind": "numeric",
    "fill": None,
    "indicator": False,
    "subtract": [1.0],
    "divide": [2.0],
    "first": 1,
    "width": 1,
}
OTHERS = {
    "images": (
        description(
            "networks.cnn:cnn", {}, array("uint8", 64), [1, 8, 8], scale={"subtract": [100.0], "divide": [50.0]}
        ),
        np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8)).tolist(),
    ),
    "tokens": (description("networks.sequence:sequence", {"tokens": 9}, array("int64", 4), [4]), [[1, 2, 3, 8]]),
    "a table": (description("networks.table:table", {}, [CATEGORY, NUMBER], [2]), [["p", 3.0], ["q", -1.0]]),
}


@installed
@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_other_networks(name):
    described, examples = OTHERS[name]
    schema = {key: described[key] for key in ("task", "classes", "features")}
    model = networks.build(
        described["factory"], described["arguments"], tuple(described["input_shape"]), 2, 0, lambda: schema
    )
    made = onnx_export.export(networks.to_bytes(model.state_dict()), described, examples)  # which compares
    assert made.keys() == {"onnx/model.onnx", "onnx/description.json"}


@installed
@pytest.mark.slow
def test_a_file_that_computes_something_else_is_told(tmp_path):
    import onnx

    described, examples = OTHERS["a table"]
    schema = {key: described[key] for key in ("task", "classes", "features")}
    model = networks.build(described["factory"], described["arguments"], (2,), 2, 0, lambda: schema)
    (tmp_path / "model.onnx").write_bytes(
        onnx_export.export(networks.to_bytes(model.state_dict()), described, examples)["onnx/model.onnx"]
    )
    assert onnx.load(tmp_path / "model.onnx").graph.input[0].name == "input"
    with pytest.raises(UserError, match="computes something else than the network: the outputs differ by"):
        onnx_export._check(tmp_path / "model.onnx", np.zeros((3, 2), np.float32), np.full((3, 2), 9, np.float32))
