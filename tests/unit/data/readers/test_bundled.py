import sys

import pyarrow as pa
import pytest

from tests.unit.data.readers.reading import read, refusal, source_of


@pytest.mark.parametrize(
    ("name", "rows", "inputs", "classes"),
    [
        ("iris", 150, 4, ["setosa", "versicolor", "virginica"]),
        ("wine", 178, 13, ["class_0", "class_1", "class_2"]),
        ("breast_cancer", 569, 30, ["benign", "malignant"]),
    ],
)
def test_classes_come_by_name(name, rows, inputs, classes):
    names, found = read(f"sklearn:{name}")
    assert (len(found), len(names)) == (rows, inputs + 1)
    assert sorted({row["kind"] for row in found}) == classes


def test_digits():
    names, rows = read("sklearn:digits", columns=["pixel_0_*"])
    assert names == [*(f"pixel_0_{column}" for column in range(8)), "kind"]
    assert len(rows) == 1797 and {row["kind"] for row in rows} == set("0123456789")


def test_regression():
    source = source_of("sklearn:diabetes", task="regression")
    assert source.schema.field("kind").type == pa.float64()
    assert source.where(4) == "sklearn:diabetes: row 5"
    assert len(read("sklearn:diabetes", task="regression")[1]) == 442
    assert {row["kind"] for row in read("sklearn:iris", task="regression")[1]} == {0.0, 1.0, 2.0}


def test_one_of_several_targets():
    names, rows = read("sklearn:linnerud", target="Waist", task="regression")
    assert names == ["Chins", "Situps", "Jumps", "Waist"] and rows[0]["Waist"] == 36.0
    assert (
        refusal("sklearn:linnerud", task="regression")
        == "sklearn:linnerud: has the targets Weight, Waist, Pulse; prepare.target must name one of them"
    )


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    told = "sklearn:wine: scikit-learn isn't installed: .venv/bin/python -m pip install --constraint requirements.txt"
    assert refusal("sklearn:wine") == f"{told} -e '.[sklearn]'"


def test_what_cannot_be():
    known = "breast_cancer, diabetes, digits, iris, linnerud, wine"
    assert refusal("sklearn:files") == f"sklearn:files: there is no such data set; scikit-learn comes with {known}"
    assert refusal("sklearn:diabetes") == "sklearn:diabetes: its target is a number; set prepare.task to regression"
    told = "sklearn:wine: 'ash' is a feature; prepare.target must be another name, under which the target comes"
    assert refusal("sklearn:wine", target="ash") == told
