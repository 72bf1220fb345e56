"""What is run at a run's commit."""

from types import SimpleNamespace

import pytest

from surefoot.base.errors import CannotSay
from surefoot.commands.verify import made_again


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
