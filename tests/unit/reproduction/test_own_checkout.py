"""A checkout of the project as it is now."""

import pytest

from surefoot.commands import run
from surefoot.reproduction import own_checkout, provenance
from tests.unit.reproduction.test_checkout import git


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with DVC's directory, and a library as a submodule."""
    library, path = tmp_path / "library", tmp_path / "project"
    for place, name in ((library, "library.py"), (path, "code.py")):
        place.mkdir()
        (place / name).write_text("1\n")
        git(place, "init", "--quiet")
        git(place, "add", "--all")
        git(place, "commit", "--quiet", "--message=start")
    (path / ".dvc").mkdir()
    (path / ".dvc/config").touch()
    git(path, "submodule", "--quiet", "add", str(library), "lib")
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message=with a library")
    monkeypatch.chdir(path)
    monkeypatch.setenv("DVC_ROOT", str(path))
    return path


def checked_out(path):
    own_checkout.check_out_now(path, provenance.code_state())
    return path


def test_what_is_not_committed_in_a_submodule_stays_and_is_told(project, tmp_path, capsys):
    (project / "code.py").write_text("2\n")
    there = checked_out(tmp_path / "clean")
    assert ((there / "code.py").read_text(), (there / "lib/library.py").read_text()) == ("2\n", "1\n")
    assert capsys.readouterr().err == ""
    (project / "lib/library.py").write_text("2\n")
    there = checked_out(tmp_path / "changed")
    assert (there / "lib/library.py").read_text() == "1\n"
    assert capsys.readouterr().err == (
        "warning: the checkout lacks what isn't committed in lib: a Git repository of its own\n"
    )


def test_another_large_file_is_another_run(project, tmp_path):
    (project / "small").write_text("1")
    start = run._digest_of(provenance.code_state())
    assert run._digest_of(provenance.code_state()) == start
    (project / "weights.bin").write_bytes(bytes(2 << 20))
    first = run._digest_of(provenance.code_state())
    assert (checked_out(tmp_path / "one") / "weights.bin").read_bytes() == bytes(2 << 20)
    (project / "weights.bin").write_bytes(b"\1" * (2 << 20))
    assert len({start, first, run._digest_of(provenance.code_state())}) == 3


def test_data_that_dvc_cannot_bring_are_told_of(project, tmp_path, capsys):
    (project / "data.csv.dvc").write_text(f"outs:\n- md5: {'a' * 32}\n  size: 1\n  hash: md5\n  path: data.csv\n")
    there = checked_out(tmp_path / "lacking")
    assert not (there / "data.csv").exists()
    err = capsys.readouterr().err
    assert err.startswith("warning: DVC can't bring all its data to the checkout: ")
    assert "data.csv" in err, err
