"""Categories as a user meets them: what one-hot costs, which network takes codes, and one category however it is
written.
"""

import pytest

from surefoot.data.batch_store import open_store
from tests.helpers import PARAMS


def cities(here, wide, **more):
    """Of `wide` cities in 600 rows (three of 150 in no training row); `more` are lines of prepare."""
    lines = [f"city {number % wide},{number % 5},{'xy'[number % 2]}" for number in range(600)]
    (here / "raw.csv").write_text("\n".join(["city,a,kind", *lines]) + "\n")
    (here / "params.yaml").write_text(
        PARAMS.replace(
            "  target: kind", "\n".join(["  target: kind", *(f"  {key}: {value}" for key, value in more.items())])
        )
    )


def test_what_one_hot_costs_is_said_before_it_is_done(here):
    cities(here, 150)
    assert (
        "note: raw.csv: by one-hot column 'city' becomes 148 inputs, which will take 355 kB in data/batches;"
        " prepare.categories: codes takes 2.4 kB, with a network that embeds them, train.model.factory:"
        " networks.table:table\n" in here.stage("prepare").out
    )
    assert here.stage("batch").code == 0
    written = open_store(here / "data/batches").train.inputs.nbytes
    assert written == 420 * 149 * 4
    cities(here, 50)
    assert "one-hot" not in here.stage("prepare").out
    cities(here, 150, categories="codes")
    assert "one-hot" not in here.stage("prepare").out


def test_codes_are_for_networks_that_ask_for_them(tracked):
    cities(tracked, 150, categories="codes")
    assert tracked.stage("prepare").code == 0
    assert tracked.stage("batch").code == 0
    refused = tracked.stage("train").refused()
    assert (
        "would take the codes of categories as amounts, of column 'city' from 0 to 147 (prepare.categories: codes)"
        in refused
    )
    assert "take networks.table:table" in refused
    assert "prepare.categories: onehot" in refused
    (tracked / "params.yaml").write_text(
        (tracked / "params.yaml").read_text().replace("networks.mlp:mlp", "networks.table:table")
    )
    assert tracked.stage("train").code == 0, tracked.stage("train")


@pytest.mark.parametrize("order", [("old", "new"), ("new", "old")])
def test_a_class_and_a_category_by_two_spellings_in_parts(here, order):
    """As pandas writes whole numbers where one is missing beside them."""
    (here / "data/raw/parts").mkdir(parents=True)
    names = dict(zip(order, ("a.csv", "b.csv"), strict=True))
    old = [f"{2000 + number % 5},{number % 7},{number % 2}" for number in range(60)]
    new = [f"{2000 + number % 5}.0,{number % 7}.0,{number % 2}.0" for number in range(60)]
    (here / "data/raw/parts" / names["old"]).write_text("\n".join(["year,a,kind", *old]) + "\n")
    (here / "data/raw/parts" / names["new"]).write_text("\n".join(["year,a,kind", *new, ",,"]) + "\n")
    prepare = (
        "  source: data/raw/parts\n  target: kind\n  kinds: {year: category}\n  missing: {numeric: drop, category:"
        " drop, target: drop}"
    )
    (here / "params.yaml").write_text(PARAMS.replace("  source: raw.csv\n  target: kind", prepare))
    done = here.stage("prepare")
    assert "2 inputs, 2 classes; rows: 84 train, 18 validation, 18 test" in done.out, done
    from surefoot.data.tables import read_schema

    schema = read_schema(here / "data/prepared")
    assert schema.classes == ["0", "1"]
    assert schema.features[0]["values"] == ["2000", "2001", "2002", "2003", "2004"]


def test_classes_and_categories_that_are_written_alike_are_told(here):
    lines = [
        f"{['Oslo', 'oslo', 'Bergen', 'New  York', 'new york'][number % 5]},{number % 7},"
        f"{['Yes', 'yes', 'no'][number % 3]}"
        for number in range(120)
    ]
    (here / "raw.csv").write_text("\n".join(["city,a,kind", *lines]) + "\n")
    out = here.stage("prepare").out
    assert "note: raw.csv: classes of 'kind' that differ only in case or blanks: 'Yes', 'yes'\n" in out
    assert (
        "note: raw.csv: categories of 'city' that differ only in case or blanks: 'New  York', 'new york', and 1 more"
        " such\n" in out
    )
