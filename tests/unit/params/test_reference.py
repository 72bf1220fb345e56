"""docs/params.md says of every key what the model says."""

import re

from surefoot.params.dotted_keys import flatten
from surefoot.params.params_yaml import load_params
from surefoot.params.reference import params_page
from surefoot.params.sections import Params
from tests.helpers import PROJECT

PAGE = (PROJECT / "docs/params.md").read_text()


def rows():
    """The cells of each row of the tables, by dotted name, in order."""
    found = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in PAGE.splitlines()
        if line.startswith("| `")
    ]
    return {cells[0].strip("`"): cells[1:] for cells in found}


def test_the_reference_is_current():
    assert params_page() == PAGE, "run: surefoot schema --markdown > docs/params.md"


def test_it_has_every_key_in_the_order_of_params_yaml():
    given = [
        key
        for key in flatten(load_params(PROJECT / "params.yaml").model_dump(mode="json"))
        if not key.startswith("train.model.arguments.")
    ]
    leaves = [
        key
        for key, (takes, _, _) in rows().items()
        if not takes.startswith("a section") and "[]" not in key and key != "train.model.arguments"
    ]
    assert leaves == ["surefoot", *given], "the version is no param of a run's"


def test_every_key_has_a_meaning():
    assert [
        key
        for key, (takes, default, meaning) in rows().items()
        if not (takes and meaning and (default or "section" in takes))
    ] == []
    assert set(Params.model_fields) - {"prepare", "batch", "train"} < rows().keys()


def test_what_a_value_may_be_is_in_plain_words():
    said = rows()
    assert said["train.lr"][:2] == ["number above 0", "(must be given)"]
    assert said["seed"][:2] == ["whole number at least 0 and below 2^63", "`0`"]
    assert said["batch.shape"][:2] == ["`auto`, or a list of whole numbers above 0, at least one, or `null`", "`null`"]
    assert said["prepare.images.resize"][0] == "a list of 2 whole numbers above 0, or `null`"
    assert said["numerics"][:2] == ["`portable`, `avx2` or `native`", "`portable`"]
    assert said["prepare.csv.header"][0] == "`true` or `false`, or a list of texts, at least one"
    assert said["train.schedule"][0] == "a section, or a list of them"
    assert said["train.optimizer.groups[].frozen"][:2] == ["`true` or `false`", "`false`"]
    assert said["train.max_minutes"][0] == "number above 0 and at most 1,000,000,000, or `null`"
