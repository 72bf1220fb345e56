import pytest

from surefoot.commands.search.space import parse_space
from surefoot.commands.search.study import Trial, median_bars, suggest_values

SPACE = parse_space(
    ["train.lr=log(1e-3,1)", "batch.size=choice(32,64)", "train.epochs=int(1,9)", "train.momentum=uniform(0,0.99)"]
)


def trial(values=None, state="complete", value=1.0, epochs=()):
    reached = value if state == "complete" else None
    return Trial(values=values or {}, state=state, value=reached, epochs=list(epochs), why="")


def quality(values):
    return abs(values["train.lr"] - 0.1) + values["train.momentum"] / 10


def searched(count, seed=0, trials=()):
    done = list(trials)
    while len(done) < count:
        values = suggest_values(SPACE, done, seed, rises=False)
        state = ("complete", "complete", "pruned", "failed")[len(done) % 4]
        done.append(trial(values, state, quality(values), [quality(values), None] if state != "failed" else []))
    return done


@pytest.fixture(autouse=True)
def _optuna():
    pytest.importorskip("optuna", reason="Optuna isn't installed: pip install -e '.[search]'")


def test_a_suggestion_depends_on_the_seed_and_the_trials_before_alone():
    whole = searched(25)
    assert searched(25, trials=whole[:13]) == whole  # as after a kill
    assert searched(25)[24] == whole[24]
    assert searched(1, seed=1) != whole[:1]
    assert len({str(found.values) for found in whole}) > 20


def test_suggestions_lie_in_the_space():
    for found in searched(25):
        values = found.values
        assert 0.001 <= values["train.lr"] <= 1
        assert values["batch.size"] in (32, 64)
        assert values["train.epochs"] in range(1, 10)
        assert 0 <= values["train.momentum"] <= 0.99


def test_it_finds_better_than_chance():
    """The mean of what is tried after the first ten, which are drawn at random, against these ten."""
    done = []
    while len(done) < 40:
        values = suggest_values(SPACE, done, 0, rises=False)
        done.append(trial(values, value=quality(values)))
    before, after = ([found.value for found in part] for part in (done[:10], done[10:]))
    assert sum(after) / 30 < sum(before) / 10


def test_bars_are_medians_of_complete_trials():
    complete = [trial(epochs=[number, 10 * number]) for number in range(1, 6)]
    assert median_bars(complete[:4]) == []
    assert median_bars([*complete[:4], trial(state="pruned", epochs=[9])]) == []
    assert median_bars([*complete, trial(state="pruned", epochs=[9, 90]), trial(state="failed")]) == [3, 30]


def test_no_bar_where_too_few_say_anything():
    complete = [trial(epochs=[None, 1.0, 2.0][: 3 if number < 3 else 2]) for number in range(6)]
    assert median_bars(complete) == [None, 1.0, None]
