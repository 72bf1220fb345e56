"""`surefoot init` of the package, in repositories of one's own: what it writes works as it lies there."""

import pytest

from tests.pipeline.test_own_repository import Own


@pytest.fixture
def repository(tmp_path, wheel_python):
    """An empty repository with a virtual environment that has Surefoot."""
    return new_repository(tmp_path / "Größe & mehr", wheel_python)


def new_repository(path, wheel_python):
    path.mkdir(parents=True)
    (path / ".venv").symlink_to(wheel_python.parents[1])
    own = Own(path)
    own.git("init", "--quiet")
    return own


def test_from_nothing_to_a_run_that_is_compared(repository):
    told = repository.surefoot("init").out
    assert "DVC was initialized" in told
    assert told.endswith("/bin/surefoot ui\n")
    repository.surefoot("check")
    assert "are of Surefoot" in repository.surefoot("upgrade").out, "what it writes needs no upgrade"
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message=start")
    done = repository.dvc("repro")
    assert "prepared data/raw/digits.csv: 64 inputs, 10 classes" in done.out
    repository.edit("train.epochs", "31")
    assert "epochs 1-30 restored, training 31-31" in repository.dvc("repro").out
    longer, first = repository.trainings()
    assert float(first.data.metrics["test/accuracy"]) > 0.9
    assert first.data.tags["mlflow.source.git.commit"] == repository.git("rev-parse", "HEAD").strip()
    assert "train.epochs" in repository.surefoot("compare", longer.info.run_id, first.info.run_id).out
