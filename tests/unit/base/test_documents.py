"""Documents, mutated: a line in any case, never a traceback."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.base import digests
from surefoot.base.documents import Malformed, parse_document
from surefoot.commands.search.in_checkout import Answer
from surefoot.commands.search.journal import Journal
from surefoot.commands.verify.made_again import IndexDigest, MetricsFile
from surefoot.data.batch_index import BatchIndex
from surefoot.data.schema_json import PreparedSchema
from surefoot.reproduction.machine import Machine
from surefoot.run.record import Account, Record, RunRecord
from surefoot.run.start_note import Seen, StartNote
from surefoot.tracking.intervals_artifact import Intervals
from tests.unit.mutated import BROKEN, WRONG, mutated, places_of

SEEN = {
    "parts": [["data/raw/a.csv", "0" * 64], ["data/raw/b.csv", "1" * 64]],
    "others": ["2" * 64],
    "split": {"prepare.split": {"by": "row"}, "seed": 0},
}


@pytest.mark.parametrize(
    "kind",
    [
        Seen,
        StartNote,
        Machine,
        RunRecord,
        Record,
        Account,
        Journal,
        Answer,
        Intervals,
        MetricsFile,
        IndexDigest,
        BatchIndex,
        PreparedSchema,
    ],
)
@pytest.mark.parametrize("how", BROKEN)
def test_broken_documents(kind, how):
    with pytest.raises(Malformed, match=r"^[^\n]+$"):
        parse_document(kind, BROKEN[how](digests.canonical_json(SEEN)))


@given(
    st.sampled_from(list(places_of(SEEN))),
    st.sampled_from(["replace", "drop", "wrap", "twice"]),
    st.sampled_from(WRONG),
)
def test_part_files_are_what_they_should_be_or_refused(place, how, new):
    try:
        read = parse_document(Seen, json.dumps(mutated(SEEN, place, how, new)).encode())
    except Malformed as error:
        assert "\n" not in str(error)
        return
    assert all(isinstance(text, str) for part in read.parts for text in part)
    assert all(len(part) == 2 for part in read.parts)
    assert all(isinstance(text, str) for text in read.others)
    assert isinstance(read.split, dict)
