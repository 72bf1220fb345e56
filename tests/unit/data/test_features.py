import json
from datetime import date, datetime, time, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from surefoot.base.errors import UserError
from surefoot.data.dates import PARTS, date_parts
from surefoot.data.features import dates_of, transform
from surefoot.data.tables import read_schema, read_table
from tests.unit.data.sources import write

ROWS = 200


def table(values, **more):
    return {"v": values, "kind": ["xy"[number % 2] for number in range(len(values))], **more}


def fitted(out, values, **options):
    """The fitted feature of one column, and the training values that it was fitted on."""
    schema, _ = write(out, table(values), **options)
    (feature,) = schema.features
    import pyarrow.parquet as pq

    return feature, pq.read_table(out / "train.parquet").column("v").to_pylist()


def applied(feature, values, type_=None):
    """What becomes of values that come later, the same from Arrow as from pandas and from a record batch."""
    array = pa.array(values, type_)
    found = transform({"v": array}, [feature])
    assert (transform(pa.record_batch({"other": array, "v": array}), [feature]) == found).all()
    assert (transform({"v": array.to_pandas().to_numpy()}, [feature]) == found).all()
    assert found.dtype == np.float32
    return found.tolist()


def test_a_number_is_scaled_by_the_training_rows(tmp_path):
    feature, training = fitted(tmp_path, [float(n * n) for n in range(ROWS)])
    mean, deviation = np.mean(training), np.std(training)
    assert applied(feature, [3.0, -1e6]) == np.float32([[(value - mean) / deviation] for value in (3.0, -1e6)]).tolist()


@pytest.mark.parametrize(("policy", "fill"), [("mean", np.mean), ("median", np.median), ("constant", lambda _: 7.0)])
@pytest.mark.parametrize("indicator", [False, True])
def test_missing_numbers_are_filled_in(tmp_path, policy, fill, indicator):
    values = [None if number % 5 == 3 else float(number**2 % 91) / 7 for number in range(ROWS)]
    feature, training = fitted(tmp_path, values, missing={"numeric": policy, "fill": 7.0, "indicator": indicator})
    there = [value for value in training if value is not None]
    assert len(there) < len(training)
    assert feature["fill"] == pytest.approx([fill(there)], rel=1e-14)
    assert feature["names"] == ["v", "v=missing"][: 1 + indicator]
    mean, deviation = np.mean(there), np.std(there)
    for missing in (None, float("nan")):
        one, other = applied(feature, [missing, 2.5])
        assert one == pytest.approx([(fill(there) - mean) / deviation, 1.0][: 1 + indicator], abs=1e-6)
        assert other == pytest.approx([(2.5 - mean) / deviation, 0.0][: 1 + indicator], rel=1e-6)


def test_what_is_fitted_knows_nothing_of_the_other_rows(tmp_path):
    """Separate validation and test rows, whatever they hold, change nothing but themselves."""
    values = [float(number % 17) for number in range(60)]
    rows = table(values, c=[*"pqr"] * 20, d=[date(2020, 1, 1 + number % 28) for number in range(60)])
    odd = table([1e6, 2e6], c=["new", "p"], d=[date(1900, 1, 1)] * 2)
    options = {"categories": "codes", "missing": {"numeric": "median"}}
    found = []
    for name, other in (("one", odd), ("two", {key: column[:2] for key, column in rows.items()})):
        (tmp_path / name).mkdir()
        found.append(write(tmp_path / name, rows, validation=other, test=other, **options)[0])
    assert found[0].features == found[1].features
    ((inputs, _),) = read_table(tmp_path / "one", "test", found[0])
    assert inputs[:, 1].tolist() == [0, 1], "a category that training didn't see, and its first"


def test_a_missing_value_without_a_policy_is_refused_later_too(tmp_path):
    feature, _ = fitted(tmp_path, [float(n) for n in range(ROWS)])
    with pytest.raises(UserError, match=r"column 'v' is empty in row 1 \(from 0\); a value is needed in every row"):
        transform({"v": np.array([1.0, np.nan])}, [feature])
    with pytest.raises(UserError, match=r"column 'v' is missing; the model's inputs are v"):
        transform({"w": np.array([1.0])}, [feature])
    with pytest.raises(UserError, match=r"column 'v' must hold numbers"):
        transform({"v": np.array(["x"], object)}, [feature])


def test_booleans(tmp_path):
    values = [None if number % 7 == 3 else number % 3 == 0 for number in range(ROWS)]
    feature, _ = fitted(tmp_path, values, missing={"boolean": "constant", "indicator": True})
    assert (feature["kind"], feature["fill"], feature["subtract"], feature["divide"]) == (
        "boolean",
        [0.0],
        [0.0],
        [1.0],
    )
    assert applied(feature, [True, False, None]) == [[1, 0], [0, 0], [0, 1]]


def test_categories_as_features_of_their_own(tmp_path):
    feature, _ = fitted(tmp_path, [["b", "10", "9"][number % 3] for number in range(ROWS)])
    assert (feature["values"], feature["encode"], feature["names"]) == (
        ["9", "10", "b"],
        "onehot",
        ["v=(other)", "v=9", "v=10", "v=b"],
    )
    assert applied(feature, ["b", "9", "never seen", "10"]) == [[0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]]
    with pytest.raises(UserError, match=r"column 'v' is empty in row 1 \(from 0\)"):
        transform({"v": pa.array(["b", None])}, [feature])


def test_categories_as_codes(tmp_path):
    feature, _ = fitted(
        tmp_path,
        [[3, 12, None][number % 3] for number in range(ROWS)],
        kinds={"v": "category"},
        categories="codes",
        missing={"category": "constant"},
    )
    assert (feature["values"], feature["width"], feature["names"]) == (["3", "12", None], 1, ["v"])
    assert applied(feature, [12, 3, None, 4], pa.int64()) == [[2], [1], [3], [0]]
    assert applied(feature, ["12", None, "x"]) == [[2], [3], [0]]


def test_dates_are_taken_apart(tmp_path):
    values = [
        datetime(2019 + number % 3, 1 + number % 12, 1 + number % 28, number % 24, number % 60, 5, 250_000)
        for number in range(ROWS)
    ]
    feature, training = fitted(tmp_path, values, normalize="none")
    assert feature["parts"] == ["year", "month", "day", "weekday", "hour", "minute", "second"]
    assert feature["names"] == [f"v.{part}" for part in feature["parts"]]
    when = datetime(2024, 2, 29, 13, 14, 15, 500_000)
    assert applied(feature, [when]) == [[2024, 2, 29, 3, 13, 14, 15.5]]
    assert transform({"v": pa.array(["2024-02-29 13:14:15.5"])}, [feature]).tolist() == [[2024, 2, 29, 3, 13, 14, 15.5]]
    assert transform({"v": pa.array([date(2024, 2, 29)])}, [feature]).tolist() == [[2024, 2, 29, 3, 0, 0, 0]]
    assert training[0] in values


def test_missing_dates_are_filled_in_part_by_part(tmp_path):
    values = [
        None if number % 4 == 1 else date(2000 + number % 20, 1 + number % 12, 1 + number % 28)
        for number in range(ROWS)
    ]
    feature, training = fitted(tmp_path, values, missing={"date": "median", "indicator": True})
    there = [value for value in training if value is not None]
    assert feature["parts"] == ["year", "month", "day", "weekday"]
    assert feature["fill"] == [
        np.median([part(value) for value in there])
        for part in (lambda d: d.year, lambda d: d.month, lambda d: d.day, date.weekday)
    ]
    (row,) = transform({"v": pa.array([None], pa.date32())}, [feature]).tolist()
    assert row[-1] == 1


def test_parts_of_times_and_zones():
    values, valid = date_parts(pa.array([time(1, 2, 3, 500_000), None]), ["hour", "minute", "second"])
    assert values[0].tolist() == [1, 2, 3.5]
    assert valid.tolist() == [True, False]
    zoned = pa.array([datetime(2020, 1, 1, 0, 30)], pa.timestamp("us", "Europe/Berlin"))
    in_utc, _ = dates_of(zoned, {"parts": list(PARTS), "zone": "UTC"})
    assert date_parts(in_utc, ["day", "hour"])[0].tolist() == [[1, 0]]


def test_features_stand_side_by_side_and_a_later_row_is_prepared_as_they_were(tmp_path):
    number = [None if n % 9 == 4 else n % 13 / 3 for n in range(ROWS)]
    rows = {
        "a": [float(n) for n in range(ROWS)],
        "city": ["uvw"[n % 3] for n in range(ROWS)],
        "n": number,
        "kind": ["xy"[n % 2] for n in range(ROWS)],
        "ok": [n % 5 == 0 for n in range(ROWS)],
        "z": [n % 50 for n in range(ROWS)],
        "day": [date(2020, 1 + n % 12, 1 + n % 27) for n in range(ROWS)],
    }
    schema, _ = write(tmp_path, rows, missing={"numeric": "mean", "indicator": True})
    features = schema.features
    assert [feature["column"] for feature in features] == ["a", "city", "n", "ok", "z", "day"]
    assert [feature["first"] for feature in features] == [0, 2, 6, 8, 9, 11]
    assert schema.shape == [sum(feature["width"] for feature in features)] == [15]
    assert all(len(feature["names"]) == feature["width"] for feature in features)
    everything = transform({name: pa.array(values) for name, values in rows.items()}, read_schema(tmp_path).features)
    assert everything.shape == (ROWS, 15)
    read = np.concatenate(
        [inputs for split in ("train", "validation", "test") for inputs, _ in read_table(tmp_path, split, schema)]
    )
    assert sorted(map(tuple, read.tolist())) == sorted(map(tuple, everything.tolist())), "to the bit"
    frame = pd.DataFrame(
        {name: values for name, values in rows.items() if name != "day"} | {"day": pd.to_datetime(rows["day"])}
    )
    assert (transform({name: frame[name].to_numpy() for name in frame}, features) == everything).all()
    examples = json.loads(json.dumps(schema.examples))
    assert len(examples) == 2
    assert examples[0][5].startswith("2020-")


def test_constants_and_ids_are_warned_of(tmp_path):
    rows = table(
        [3.0] * 60,
        text=["same"] * 60,
        sometimes=[1.0] * 59 + [None],
        day=[date(2020, 1, 1)] * 60,
        id=[7 * n for n in range(60)],
        name=[f"row {n}" for n in range(60)],
        price=[n / 7 for n in range(60)],
        count=[n % 50 for n in range(60)],
        shuffled=[float(7 * n % 60) for n in range(60)],
        down=[-n * n for n in range(60)],
        income=[1000 + 7919 * n % 50_021 for n in range(60)],
        born=[date(2020, 1, 1) + timedelta(n) for n in range(60)],
    )
    schema, (constant, ids, counter) = write(tmp_path, rows, missing={"numeric": "mean"})
    assert constant.startswith("the same value in every training row, from which nothing is learned: 'v', 'text', ")
    assert "'day' (prepare.ignore leaves a column out)" in constant
    assert ids.startswith("another value in every training row, as in an id, from which nothing is learned: 'name' (")
    assert counter.startswith(
        "whole numbers that count the rows, or rise or fall with them: 'id', 'shuffled', 'down'; if that is an id or a"
        " row's number, leave it out"
    )
    assert [feature["column"] for feature in schema.features][:2] == ["v", "text"], "they stay"


def test_ids_among_many_rows_are_warned_of(tmp_path):
    """Also where not all values are kept, and where they are too large for an integer."""
    count = 9000
    rows = {
        "kind": ["xy"[n % 2] for n in range(count)],
        "zero": [0] * count,
        "large": [float(n) * 2**80 for n in range(count)],
    }
    rows |= {
        "shuffled": [n * 4001 % count for n in range(count)],
        "pairs": [n // 2 for n in range(count)],
        "income": [n * 4001 % 90_001 for n in range(count)],
    }
    _, notes = write(tmp_path, rows)
    assert [note.partition(";")[0] for note in notes if "count the rows" in note] == [
        "whole numbers that count the rows, or rise or fall with them: 'large', 'shuffled'"
    ]


def test_a_constant_column_becomes_zero(tmp_path):
    feature, _ = fitted(tmp_path, [3.0] * ROWS)
    assert applied(feature, [3.0, 4.0]) == [[0.0], [1.0]]


def test_a_column_of_the_other_values_everywhere_keeps_its_fill(tmp_path):
    """All training values missing: mean and median are 0."""
    schema, _ = write(
        tmp_path, table(pa.nulls(60, pa.float64()), w=[float(n) for n in range(60)]), missing={"numeric": "median"}
    )
    assert schema.features[0]["fill"] == [0.0]
