"""What is run at a run's commit."""

from types import SimpleNamespace

import pytest

from surefoot.base.errors import CannotSay
from surefoot.commands.verify import made_again
from surefoot.run.trajectory_store import TrajectoryStore
from tests.helpers import some_run


@pytest.mark.parametrize(
    ("file", "module"),
    [
        ("retrain.py", "surefoot.retrain"),  # a commit of before src/surefoot/commands
        ("commands/retrain.py", "surefoot.commands.retrain"),
    ],
)
def test_epochs_are_trained_by_what_the_commit_has(tmp_path, file, module):
    (tmp_path / "src/surefoot" / file).parent.mkdir(parents=True)
    (tmp_path / "src/surefoot" / file).touch()
    called = []
    remake = SimpleNamespace(
        path=tmp_path,
        python=lambda *arguments: called.append(arguments),
        scratch=SimpleNamespace(finish=lambda processes: len(called) - 1),
    )
    made_again._retrain(remake, [(5, 6, tmp_path / "store")], threads=1)
    assert called == [("-m", module, "5-6", str(tmp_path / "store"))]
    with pytest.raises(CannotSay, match="can't be trained again at its commit"):
        made_again._retrain(remake, [(5, 6, tmp_path / "store")], threads=1)


def test_a_run_that_came_to_no_end_is_compared_with_nothing(tmp_path, monkeypatch):
    """A budget of minutes was over before it was made again: it may have been trained in several goes."""
    over = "after 1 of 3 epochs train.max_minutes (1e-09) was over"

    def reproduce(stage, *, store):
        assert stage == "evaluate"
        TrajectoryStore(store).mark_run(some_run("a" * 64, last="b" * 64, incomplete=over))

    monkeypatch.setattr(made_again, "make_account", lambda run, store: run)
    remake = SimpleNamespace(scratch=SimpleNamespace(path=tmp_path), reproduce=reproduce)
    account = SimpleNamespace(start=SimpleNamespace(wanted=None), epochs=[1, 2, 3])
    with pytest.raises(CannotSay) as caught:
        made_again.whole_run(remake, None, account)
    assert str(caught.value) == f"made again, it came to no end: {over}; `--epochs 1-3` knows no such limit"
