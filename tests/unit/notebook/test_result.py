import base64
import json
import re

import pytest

from surefoot.notebook.result import Result

ABOUT = {
    "params": {"seed": 0},
    "network": {},
    "epochs": 30,
    "chosen_epoch": 29,
    "run_id": "0" * 32,
    "name": "digits lr=0.1",
    "page": "http://127.0.0.1:5000/#/runs/" + "0" * 32,
}


@pytest.fixture
def result(tmp_path):
    """One that was made of files, and of what is said of the run."""

    def make(**about):
        path = tmp_path / "result"
        (path / "plots").mkdir(parents=True)
        (path / "run.json").write_text(json.dumps(ABOUT | about))
        (path / "metrics.json").write_text('{"test": {"loss": 0.25, "accuracy": 0.9368, "ece": 0.07}}')
        (path / "intervals.json").write_text('{"test": {"accuracy": {"low": 0.9011, "high": 0.9602}}}')
        (path / "predictions.csv").write_text("actual,predicted\n1,1\n2,1\n3,3\n")
        for name in ("confusion.png", "training.png"):
            (path / "plots" / name).write_bytes(name.encode())
        return Result(path)

    return make


def test_in_a_terminal(result):
    assert repr(result()) == (
        "digits lr=0.1\n"
        "               3 test rows     95 % interval\n"
        "test/loss           0.2500\n"
        "test/accuracy       0.9368  0.9011 to 0.9602\n"
        "test/ece            0.0700\n"
        "model of epoch 29 of 30\n"
        "MLflow: run 00000000000000000000000000000000\n"
        "        http://127.0.0.1:5000/#/runs/00000000000000000000000000000000"
    )


def test_without_mlflow(result):
    found = result(run_id=None, name=None, page=None)
    assert repr(found).splitlines()[0] == "a run that isn't in MLflow yet: `surefoot sync` brings it"
    assert "model of epoch 29 of 30" in repr(found).splitlines()[-1]
    assert "href" not in found._repr_html_()


def test_in_a_notebook(result):
    shown = result()._repr_html_()
    pictures = [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', shown)]
    assert pictures == [b"training.png", b"confusion.png"]
    assert re.findall(r"<summary>(.*)</summary>", shown) == ["1 more plot"]
    assert "<td>0.9368</td><td>0.9011 to 0.9602</td>" in shown


def test_what_a_name_says_is_text(result):
    """A run's name has values of params.yaml, and its data's file name."""
    found = result(name='"><script>alert(1)</script>\x1b[2J', page='http://x/"><script>')
    assert "<script>" not in found._repr_html_()
    assert "\x1b" not in found._repr_html_() + repr(found)


def test_plots_are_pictures_and_bytes(result):
    plots = result().plots
    assert list(plots) == ["training.png", "confusion.png"]
    assert plots["training.png"]._repr_png_() == plots["training.png"] == b"training.png"
