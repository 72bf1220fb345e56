"""As a new user would, with the wheel in a new environment: init, repro, a change, compare, verify, upgrade."""

import pytest

from tests.pipeline.test_own_repository import Own


def empty(top):
    return [], top


def with_a_pipeline(top):
    (top / "dvc.yaml").write_text("stages: {mine: {cmd: echo mine > mine.txt, outs: [mine.txt]}}\n")
    (top / "code.py").write_text("print('mine')\n")
    return [], top / "training"


def monorepo(top):
    (top / "web").mkdir()
    (top / "web/page.html").write_text("mine")
    return ["ml/ziffern groß"], top / "ml/ziffern groß"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [empty, with_a_pipeline, monorepo])
def test_a_repository_of_ones_own(kind, tmp_path, wheel_python):
    top = tmp_path / "theirs"
    top.mkdir()
    arguments, place = kind(top)
    (top / ".venv").symlink_to(wheel_python.parents[1])
    repository = Own(top)
    repository.git("init", "--quiet")
    (top / ".git/info/exclude").write_text(".venv\n")
    surefoot, python = str(top / ".venv/bin/surefoot"), str(top / ".venv/bin/python")
    if (top / "dvc.yaml").exists():
        repository.run(python, "-m", "dvc", "init", "--quiet")
    repository.run(surefoot, "init", *arguments)
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message=start")

    own = Own(place)
    activated = f"{top}/.venv/bin:/usr/bin:/bin"  # where DVC is of a folder, the environment lies outside of it
    own.run(python, "-m", "dvc", "repro", PATH=activated)
    own.edit("train.epochs", "31")
    assert "epochs 1-30 restored, training 31-31" in own.run(python, "-m", "dvc", "repro", PATH=activated).out
    longer, first = own.trainings()
    assert "train.epochs" in own.run(surefoot, "compare", longer.info.run_id, first.info.run_id).out
    assert "identical" in own.run(surefoot, "verify", first.info.run_id, PATH=activated).out
    before = [(place / name).read_bytes() for name in ("dvc.yaml", "params.yaml")]
    own.run(surefoot, "upgrade", "--yes")
    assert [(place / name).read_bytes() for name in ("dvc.yaml", "params.yaml")] == before
    assert "data/raw" not in repository.git("status", "--porcelain")
