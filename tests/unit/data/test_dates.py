import json
from datetime import UTC, date, datetime, time, timedelta, timezone

import pyarrow as pa
import pytest

from surefoot.base.errors import UserError
from surefoot.data.dates import DATE, INSTANT, MOMENT, TIME, as_date_type, read_dates
from surefoot.data.features import transform
from surefoot.data.kept_preparation import parse_preparation
from surefoot.data.prepare_as_kept import as_kept
from surefoot.data.tables import write_tables
from surefoot.params.date_formats import CLOCK, ISO, check_format
from tests.unit.data import sources


def write(out, *given, **options):
    out.mkdir(exist_ok=True)
    return sources.write(out, *given, **options)


@pytest.mark.parametrize(
    ("form", "text", "wanted"),
    [
        (ISO, "2024-12-31", datetime(2024, 12, 31)),
        (ISO, " 2024-1-5 ", datetime(2024, 1, 5)),
        (ISO, "2024-12-31 23:59", datetime(2024, 12, 31, 23, 59)),
        (ISO, "2024-12-31T23:59:59.1234567", datetime(2024, 12, 31, 23, 59, 59, 123456)),
        (ISO, "2024-12-31 23", datetime(2024, 12, 31, 23)),
        (ISO, "1899-03-01 00:00:00.5", datetime(1899, 3, 1, 0, 0, 0, 500_000)),
        (ISO, "0001-01-01", datetime(1, 1, 1)),
        (ISO, "2023-02-29", None),
        (ISO, "2024-13-01", None),
        (ISO, "2024-12-31 24:00", None),
        (ISO, "0000-01-01", None),
        (ISO, "2024-12-31 x", None),
        (ISO, "20241231", None),
        (ISO, "", None),
        ("%m/%d/%Y", "3/14/2020", datetime(2020, 3, 14)),
        ("%m/%d/%Y", "03/14/2020 12:30 AM", datetime(2020, 3, 14, 0, 30)),
        ("%m/%d/%Y", "03/14/2020, 12:30:01 p.m.", datetime(2020, 3, 14, 12, 30, 1)),
        ("%m/%d/%Y", "03/14/2020 13:30 PM", None),
        ("%m/%d/%Y", "14/03/2020", None),
        ("%m/%d/%Y", "2020-03-14", datetime(2020, 3, 14)),
        ("%d.%m.%Y", "14.03.2020 9:05", datetime(2020, 3, 14, 9, 5)),
        ("%d.%m.%Y", "14x03x2020", None),
        ("%b %d, %Y", "January 1,  2000", datetime(2000, 1, 1)),
        ("%b %d, %Y", "sept 30, 2001 10:00", datetime(2001, 9, 30, 10)),
        ("%b %d, %Y", "Mai 30, 2001", None),
        ("%d %b %Y", "Sat, 01 Jan 2000 10:00:00", datetime(2000, 1, 1, 10)),
        ("%d%b%Y", "01JAN2000", datetime(2000, 1, 1)),
        ("%Y%m%d", "20240229", datetime(2024, 2, 29)),
        ("%Y%m%d%H%M", "202402291305", datetime(2024, 2, 29, 13, 5)),
        ("%d.%m.%y %H:%M", "31.12.68 10:11", datetime(2068, 12, 31, 10, 11)),
        ("%d.%m.%y", "31.12.69", datetime(1969, 12, 31)),
        ("%Y-%m", "2024-05", datetime(2024, 5, 1)),
        ("%Y年%m月%d日", "2020年3月14日", datetime(2020, 3, 14)),
    ],
)
def test_a_text_is_read(form, text, wanted):
    result = read_dates(pa.array([text]), form)
    assert as_date_type(result, MOMENT).to_pylist() == [wanted]


@pytest.mark.parametrize(
    ("form", "text", "wanted"),
    [
        (CLOCK, "9:05", time(9, 5)),
        (CLOCK, "09:05:10.25", time(9, 5, 10, 250_000)),
        (CLOCK, "12:05 am", time(0, 5)),
        (CLOCK, "9:5", None),
        (CLOCK, "24:00", None),
        ("%I.%M %p", "9.05 PM", time(21, 5)),
        ("%H%M", "0905", time(9, 5)),
    ],
)
def test_a_time_of_the_day_is_read(form, text, wanted):
    assert as_date_type(read_dates(pa.array([text]), form), TIME).to_pylist() == [wanted]


@pytest.mark.parametrize(
    "text",
    [
        "2024-12-31T22:59:59Z",
        "2024-12-31 23:59:59+01:00",
        "2024-12-31 17:29:59-0530",
        "2024-12-31 22:59:59 UTC",
        "2025-01-01T00:59:59+02",
    ],
)
def test_an_instant_is_read(text):
    result = read_dates(pa.array([text]), ISO)
    assert result.zoned.all()
    assert as_date_type(result, INSTANT).to_pylist() == [datetime(2024, 12, 31, 22, 59, 59, tzinfo=UTC)]


def test_formats_that_are_none():
    for form in ("%d/%m/%Y", "%-d. %B %Y", "%F %T", "%s", "%H:%M", "%Y-%m-%dT%H:%M:%S.%f%z", "%I:%M:%S %p"):
        assert check_format(form) == form
    for form, said in (
        ("%Q-%m-%Y", "%Q isn't known"),
        ("%d", "a year, a month"),
        ("day", "a year, a month"),
        ("%d/%d/%Y", "%d or its like stands in it twice"),
    ):
        with pytest.raises(ValueError, match=said):
            check_format(form)


# --- columns of them


def rows(values, type_=None, **more):
    return {"v": pa.array(values, type_), "kind": ["xy"[number % 2] for number in range(len(values))], **more}


DAYS = [date(2020, 1, 1) + timedelta(37 * number) for number in range(60)]
WRITTEN = {
    "%Y/%m/%d": "%Y/%m/%d",
    "%m/%d/%Y": "%m/%d/%Y",
    "%d/%m/%Y": "%d/%m/%Y",
    "%d.%m.%Y": "%d.%m.%Y",
    "%-d.%-m.%Y": "%d.%m.%Y",
    "%d-%m-%Y": "%d-%m-%Y",
    "%b %-d %Y": "%b %d %Y",
    "%B %d, %Y": "%b %d, %Y",
    "%d %b %Y": "%d %b %Y",
    "%d-%b-%Y": "%d-%b-%Y",
    "%d%b%Y": "%d%b%Y",
}


@pytest.mark.parametrize("written", WRITTEN)
def test_the_format_is_found(tmp_path, written):
    texts = [f"{day:{written}}" for day in DAYS]
    schema, _ = write(tmp_path / "a", rows([None, *texts[1:]]), missing={"date": "drop"}, normalize="none")
    (feature,) = schema.features
    assert (feature["kind"], feature["format"], feature["parts"]) == (
        "date",
        WRITTEN[written],
        ["year", "month", "day", "weekday"],
    )
    found = transform({"v": pa.array(texts)}, [feature]).tolist()
    assert found == [[day.year, day.month, day.day, day.weekday()] for day in DAYS]
    with_times, _ = write(
        tmp_path / "b", rows([f"{text} {number % 12 + 1}:05 pm" for number, text in enumerate(texts)]), normalize="none"
    )
    assert transform({"v": pa.array([f"{texts[1]} 12:05 am"])}, with_times.features).tolist() == [
        [DAYS[1].year, DAYS[1].month, DAYS[1].day, DAYS[1].weekday(), 0, 5, 0]
    ]


def test_times_of_one_digit(tmp_path):
    schema, _ = write(tmp_path, rows([f"{number % 24}:{number:02}" for number in range(60)]), normalize="none")
    (feature,) = schema.features
    assert feature["parts"] == ["hour", "minute", "second"]
    for given in (["9:05"], ["09:05:00"], ["9:05 am"]):
        assert transform({"v": pa.array(given)}, [feature]).tolist() == [[9, 5, 0]]
    assert transform({"v": pa.array([time(9, 5)])}, [feature]).tolist() == [[9, 5, 0]]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            [f"0{1 + n % 8}/0{1 + n % 9}/2020" for n in range(60)],
            ["row 10, column 'v': '01/09/2020' can be 9 January or 1 September, and none", "category"],
        ),
        ([f"0{1 + n % 9}.0{1 + n % 8}.2020" for n in range(60)], ['prepare.dates: {v: "%m.%d.%Y" or "%d.%m.%Y"}']),
        (
            ["02/02/2020"] * 60,
            [
                "row 2, column 'v': '02/02/2020' and the others of the first rows don't tell whether days or months"
                " come first"
            ],
        ),
        (
            [f"{day:%m/%d/%y}" for day in DAYS],
            ["row 2, column 'v': '01/01/20'", "a year of two digits", 'prepare.dates: {v: "%m/%d/%y"}', "category"],
        ),
        ([f"{day:%d-%b-%y}" for day in DAYS], ["a year of two digits", '"%d-%b-%y"']),
        (
            [f"{DAYS[2]:%d/%m/%Y}", *(f"{day:%m/%d/%Y}" for day in DAYS[1:])],
            ["row 2", "'15/03/2020' is a date that is written otherwise than '02/07/2020'"],
        ),
        (
            [*(f"{day:%m/%d/%Y}" for day in DAYS[:-1]), "unknown"],
            ["row 61, column 'v': 'unknown' is not a date", "prepare.missing.values", "category"],
        ),
        (
            [*(f"{day:%m/%d/%Y}" for day in [DAYS[2]] * 57), "closed", "open", "closed"],
            ["row 59, column 'v': 'closed' is not a date"],
        ),
        ([*(f"{day:%Y-%m-%d}" for day in DAYS[:-1]), "2020-02-30"], ["row 61, column 'v': '2020-02-30' is not a date"]),
    ],
)
def test_dates_that_can_not_be_read_in_one_way(tmp_path, values, said):
    with pytest.raises(UserError) as refused:
        write(tmp_path, rows(values))
    assert all(text in str(refused.value) for text in said), refused.value
    schema, _ = write(tmp_path, rows(values), kinds={"v": "category"}, split={"by": "row"})
    assert schema.features[0]["kind"] == "category"


def test_a_format_by_params(tmp_path):
    values = [f"0{1 + n % 9}/0{1 + n % 8}/2020" for n in range(60)]
    for form, wanted in (("%d/%m/%Y", [2020, 4, 3, 4]), ("%m/%d/%Y", [2020, 3, 4, 2])):
        schema, _ = write(tmp_path, rows(values), dates={"v": form}, normalize="none")
        assert transform({"v": pa.array(["03/04/2020"])}, schema.features).tolist() == [wanted]
        assert transform({"v": pa.array(["2020-12-31"])}, schema.features).tolist() == [[2020, 12, 31, 3]], (
            "ISO can be nothing else"
        )
    with pytest.raises(
        UserError, match=r"raw.csv: row 42, column 'v': 'x' is not a date such as 12/31/2024 \(%m/%d/%Y\)"
    ):
        write(tmp_path, rows([*values[:40], "x", *values[40:]]), dates={"v*": "%m/%d/%Y"})


def test_numbers_that_may_be_days_are_told(tmp_path):
    days = [int(f"{day:%Y%m%d}") for day in DAYS]
    told = "taken as numbers, though they may be days, as 20241231 is: 'v' (prepare.dates: \"%Y%m%d\" reads them so)"
    assert told in write(tmp_path, rows(days))[1]
    other = [*days[:-20], *[20261399] * 20]
    for values, options in ((days, {"kinds": {"v": "numeric"}}), (other, {}), ([float(day) for day in days], {})):
        assert told not in write(tmp_path, rows(values), **options)[1]


@pytest.mark.parametrize("type_", [pa.int64(), pa.float64(), pa.string()])
def test_dates_that_are_numbers(tmp_path, type_):
    values = pa.array([int(f"{day:%Y%m%d}") for day in DAYS], pa.int64()).cast(type_)
    schema, _ = write(tmp_path, rows(values), dates={"v": "%Y%m%d"}, normalize="none")
    assert transform({"v": values.slice(1, 1)}, schema.features).tolist() == [[2020, 2, 7, 4]]
    with pytest.raises(UserError, match=r"row 0 \(from 0\) '7' is not a date such as 20241231"):
        transform({"v": pa.array([7])}, schema.features)


def test_a_time_after_days_alone(tmp_path):
    values = [f"{day:%d.%m.%Y}" for day in DAYS] * 100
    with pytest.raises(
        UserError, match=r"row 5002, column 'v': '14.03.2020 10:00' names a time of the day.*prepare.kinds: date"
    ):
        write(tmp_path, rows([*values[:5000], "14.03.2020 10:00", *values[5000:]]), size=1000)
    schema, _ = write(tmp_path, rows([*values[:5000], "14.03.2020 10:00", *values[5000:]]), kinds={"v": "date"})
    assert schema.features[0]["parts"][-1] == "second"


def test_texts_that_only_look_like_dates_stay_categories(tmp_path):
    for values in (
        ["1.2.10", "10.2.3", "3.11"],
        ["a/b", "01/02", "12/13"],
        ["2:1", "0:0", "13:2"],
        ["2010-11", "2011-12", "2012-13"],
        ["Monday", "Friday", "May"],
    ):
        schema, _ = write(tmp_path, rows(values * 20))
        assert schema.features[0]["kind"] == "category", values


def test_a_split_by_the_time_of_texts(tmp_path):
    texts = [f"{day:%d.%m.%Y}" for day in DAYS]
    write(tmp_path, rows(texts, n=list(range(60))), split={"by": "time", "column": "v"})
    import pyarrow.parquet as pq

    assert pq.read_table(tmp_path / "test.parquet").column("n").to_pylist() == list(range(51, 60)), (
        "the latest, not the last by the alphabet"
    )


def test_instants_give_the_same_numbers_however_they_come(tmp_path):
    moments = [datetime(2024, 3, 30, 20, tzinfo=UTC) + timedelta(minutes=47 * number) for number in range(60)]
    east = timezone(timedelta(hours=5, minutes=30))
    ways = {
        "zone": pa.array(moments, pa.timestamp("us", "Europe/Berlin")),
        "utc": pa.array(moments, pa.timestamp("ns", "UTC")),
        "fixed": pa.array(moments, pa.timestamp("s", "-03:00")),
        "offset": pa.array([moment.astimezone(east).isoformat() for moment in moments]),
        "z": pa.array([f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in moments]),
        "us": pa.array([f"{moment:%m/%d/%Y %H:%M:%S} UTC" for moment in moments]),
    }
    written = {}
    for way, values in ways.items():
        written[way], _ = write(tmp_path / way, rows(values), kinds={"v": "date"})
    plain = {way: json.dumps({**schema.features[0], "format": None}, sort_keys=True) for way, schema in written.items()}
    assert len(set(plain.values())) == 1, "fitted on the same numbers"
    first = transform({"v": ways["zone"]}, written["zone"].features)
    for way, values in ways.items():
        for schema in (written["us"], written[way]):
            assert (transform({"v": values}, schema.features) == first).all(), way
    assert {str(read_type(tmp_path / way)) for way in ways} == {"timestamp[us, tz=UTC]"}


def read_type(directory):
    import pyarrow.parquet as pq

    return pq.read_schema(directory / "train.parquet").field("v").type


def test_times_with_a_zone_and_without_are_not_mixed(tmp_path):
    moments = [f"2024-03-{1 + number % 28:02}T10:00:00" for number in range(60)]
    with pytest.raises(
        UserError, match=r"row 12, column 'v': '2024-03-11T10:00:00' has no time zone, and the others have one"
    ):
        write(tmp_path, rows([*(f"{text}Z" for text in moments[:10]), *moments[10:]]), kinds={"v": "date"})
    zoned, _ = write(tmp_path / "a", rows([f"{text}Z" for text in moments]), kinds={"v": "date"})
    plain, _ = write(tmp_path / "b", rows(moments), kinds={"v": "date"})
    for schema, value, said in (
        (zoned, pa.array(["2024-03-01 10:00"]), "has no time zone"),
        (zoned, pa.array([datetime(2024, 3, 1)]), "has no time zone"),
        (plain, pa.array(["2024-03-01T10:00:00Z"]), "has a time zone"),
        (plain, pa.array([datetime(2024, 3, 1)], pa.timestamp("us", "Asia/Tokyo")), "has a time zone"),
        (plain, pa.array([20240301]), "is no date"),
        (plain, pa.array([time(9, 5)]), "is no date"),
    ):
        with pytest.raises(UserError, match=f"column 'v' can't be taken as date: in row 0 .*{said}"):
            transform({"v": value}, schema.features)


def test_finer_than_a_microsecond_is_cut_off_the_same_way(tmp_path):
    nanoseconds = [-1_500, *(number * 86_400_000_000_000 + 1_999 for number in range(1, 60))]
    in_file = pa.array(nanoseconds, pa.timestamp("ns"))
    schema, _ = write(tmp_path, rows(in_file), normalize="none", split={"by": "row"}, seed=1)
    import pyarrow.parquet as pq

    kept = sorted(
        value
        for split in ("train", "validation", "test")
        for value in pq.read_table(tmp_path / f"{split}.parquet").column("v").cast(pa.int64()).to_pylist()
    )
    assert kept[:2] == [-2, 86_400_000_001]
    assert (
        transform({"v": in_file}, schema.features).tolist()
        == transform({"v": in_file.cast(pa.string())}, schema.features).tolist()
    )
    assert DATE != MOMENT


def test_a_kept_preparation_keeps_formats_and_zones(tmp_path):
    """Of a model that training starts from."""
    days = rows([f"{day:%m/%d/%Y}" for day in DAYS], at=[f"{day}T12:00:00Z" for day in DAYS])
    schema, _ = write(tmp_path, days, kinds={"at": "date"})
    kept = parse_preparation(schema.plain())
    assert kept.plain()["features"] == schema.features
    new = rows([f"{n % 12 + 1:02}/02/2024" for n in range(60)], at=[f"{day}T12:00:00+02:00" for day in DAYS])
    prepare = as_kept(sources.prepare_of(kinds={"at": "date"}), kept)
    write_tables(tmp_path, prepare, 0, sources.source(new), keep=kept)
    import pyarrow.parquet as pq

    assert set(pq.read_table(tmp_path / "train.parquet").column("v").to_pylist()) <= {
        datetime(2024, month, 2) for month in range(1, 13)
    }, "not both ways"
    with pytest.raises(UserError, match="column 'at' holds times without a zone, but with one in the model"):
        write_tables(tmp_path, prepare, 0, sources.source({**new, "at": [f"{day}T12:00" for day in DAYS]}), keep=kept)
    with pytest.raises(UserError, match=r"prepare.dates: v"):
        as_kept(sources.prepare_of(dates={"v": "%d/%m/%Y"}), kept)
