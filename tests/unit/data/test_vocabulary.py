import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from surefoot.base.errors import UserError
from surefoot.data.features import transform
from surefoot.data.vocabulary import Vocabulary, category_keys, texts_of_categories
from surefoot.serving.rows_to_predict import as_arrow
from tests.unit.data.sources import write


def test_a_vocabulary_numbers_texts_as_they_come():
    vocabulary = Vocabulary()
    assert vocabulary.encode(pa.array(["b", None, "a", "b"])).tolist() == [0, -1, 1, 0]
    assert vocabulary.encode(pa.array([None, None], pa.string())).tolist() == [-1, -1]
    assert vocabulary.encode(pa.array(["", "a", "c"])).tolist() == [2, 1, 3]
    assert vocabulary.encode(pa.array([], pa.string())).tolist() == []
    assert vocabulary.labels() == ["b", "a", "", "c"]
    assert vocabulary.encode(pa.array([None, "a", "e", "d", "e"]), row=6).tolist() == [-1, 1, 4, 5, 4]
    assert vocabulary.firsts == [0, 2, 0, 2, 8, 9], "the row of each, where it came first"


def test_a_text_has_one_spelling():
    vocabulary = Vocabulary()
    assert vocabulary.encode(pa.array(["1.0", "2", "1", None, "2.0", "-0", "0.00", "1."])).tolist() == [
        0,
        1,
        0,
        -1,
        1,
        2,
        2,
        0,
    ]
    assert vocabulary.labels() == ["1", "2", "0"]
    assert vocabulary.encode(pa.array(["True", "true", "TRUE", "tRuE"])).tolist() == [3, 3, 3, 4]
    assert vocabulary.labels()[3:] == ["True", "tRuE"], "as it is spelled at first"
    apart = ["1.5", "1.50", "01", "1", "1e0", "1.0.0", "v1.0", "1.0 "]
    assert len(set(category_keys(pa.array(apart)).to_pylist())) == len(apart)


@pytest.mark.parametrize(
    ("array", "texts"),
    [
        (pa.array([2007.0, None, 0.5, float("nan"), -0.0]), ["2007", None, "0.5", None, "0"]),
        (pa.array([2007.0, 1e10, 20200131123456.0]), ["2007", "10000000000", "20200131123456"]),
        (pa.array([0.1], pa.float32()), ["0.1"]),
        (pa.array([1, 2**62]), ["1", str(2**62)]),
        (pa.array([True, None]), ["true", None]),
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
    ],
)
def test_numbers_as_texts(array, texts):
    assert texts_of_categories(array).to_pylist() == texts


YEARS = [2005 + number % 4 for number in range(80)]


@pytest.mark.parametrize("form", [pa.int64(), pa.float64(), pa.string()])
def test_whole_numbers_are_the_same_categories_however_they_come(tmp_path, form):
    texts = [str(year) for year in YEARS]
    given = pa.array([f"{year}.0" for year in YEARS]) if form == pa.string() else pa.array(YEARS, form)
    rows = {"year": given, "kind": ["xy"[number % 2] for number in range(80)]}
    schema, _ = write(tmp_path, rows, kinds={"year": "category"}, missing={"category": "constant"})
    (feature,) = schema.features
    assert feature["values"] == ["2005", "2006", "2007", "2008", None]
    wanted = transform({"year": pa.array([*texts[:4], None, "1999"])}, [feature])
    assert wanted.argmax(1).tolist() == [1, 2, 3, 4, 5, 0]
    numbers = [*YEARS[:4], None, 1999]
    for same in (
        pd.Series(numbers),
        pd.Series(numbers, dtype="Int64"),
        pd.Series([*texts[:4], None, "1999.0"]),
        pd.Series([None if year is None else f"{year}.0" for year in numbers]),
        pd.Series(numbers, dtype=object),
        pd.Categorical(numbers),
    ):
        assert (transform({"year": as_arrow(pd.Series(same), feature)}, [feature]) == wanted).all(), same
    assert (
        transform({"year": np.array([float("nan") if year is None else year for year in numbers])}, [feature]) == wanted
    ).all()


def test_numbers_where_categories_are_other_texts(tmp_path):
    rows = {
        "zip": [f"0{1200 + number % 4}" for number in range(80)],
        "kind": ["xy"[number % 2] for number in range(80)],
    }
    schema, _ = write(tmp_path, rows)
    for given in (pd.Series([1201]), pd.Series([1201.0])):
        with pytest.raises(UserError, match="its categories are texts, such as '01200': read it as text"):
            as_arrow(given, schema.features[0])


def test_booleans_as_categories(tmp_path):
    rows = {
        "flag": [["True", "False", "maybe"][number % 3] for number in range(80)],
        "kind": ["xy"[number % 2] for number in range(80)],
    }
    (feature,) = write(tmp_path, rows)[0].features
    assert feature["values"] == ["False", "True", "maybe"]
    assert transform({"flag": as_arrow(pd.Series([True, False]), feature)}, [feature]).argmax(1).tolist() == [2, 1]


@pytest.mark.parametrize("classes", [["0", "1"], ["0.0", "1.0"], [0.0, 1.0], [0, 1]])
def test_a_class_has_one_spelling(tmp_path, classes):
    there = {"a": [float(number) for number in range(40)], "kind": [["0", "1.0"][number % 2] for number in range(40)]}
    elsewhere = {"a": [0.5, 0.75], "kind": classes}
    schema, _ = write(tmp_path, there, test=elsewhere, task="binary")
    assert schema.classes == ["0", "1"]
    assert schema.rows["test"] == 2
