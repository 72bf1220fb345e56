"""`surefoot upgrade`: what it shows, asks and writes."""

import shutil
from pathlib import Path

import pytest

from surefoot.base import installation, writing
from surefoot.base.errors import UserError
from surefoot.commands import upgrade
from surefoot.params.params_yaml import load_params

OLDEST = Path(__file__).parents[1] / "params/oldest"
FILES = ("dvc.yaml", "params.yaml")


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A repository whose files are of the oldest version that is known."""
    for name in FILES:
        shutil.copy(OLDEST / name.replace(".", "-0.1.0."), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(installation, "installed_version", lambda: "2.0.0")
    return tmp_path


def contents(place):
    return {name: (place / name).read_bytes() for name in FILES}


def test_it_shows_what_changes_and_without_a_terminal_writes_nothing(old, capsys):
    before = contents(old)
    with pytest.raises(UserError, match=r"nothing was written: `surefoot upgrade --yes` writes what is shown above"):
        upgrade.main(yes=False)
    shown = capsys.readouterr().out
    assert "+surefoot: 2.0.0\n" in shown
    assert "-    params: [prepare, train.start_from]\n" in shown
    assert "+    params: [prepare, train.start_from, surefoot]\n" in shown
    assert contents(old) == before


@pytest.mark.parametrize(("answer", "written"), [("yes\n", True), ("n\n", False), ("", False)])
def test_at_a_terminal_it_asks(old, monkeypatch, capsys, answer, written):
    before = contents(old)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin.readline", lambda: answer, raising=False)
    monkeypatch.setattr("surefoot.base.terminal.is_terminal", lambda stream: True)
    upgrade.main(yes=False)
    said = capsys.readouterr().out
    assert "Write this? yes or no:" in said
    assert (contents(old) != before) == written
    assert ("nothing was written" in said) != written


def test_what_was_written_is_right_and_needs_nothing_more(old, capsys):
    with (old / "params.yaml").open("r+b") as file:
        text = file.read()
        file.seek(0)
        file.write(b"\xef\xbb\xbf" + text)
    upgrade.main(yes=True)
    assert (old / "params.yaml").read_bytes().startswith(b"\xef\xbb\xbf# yaml")
    assert load_params(old / "params.yaml").surefoot == "2.0.0"
    before = contents(old)
    capsys.readouterr()
    upgrade.main(yes=False)
    assert capsys.readouterr().out == "params.yaml and dvc.yaml are of Surefoot 2.0.0 already\n"
    assert contents(old) == before


def test_a_file_that_cannot_be_written_leaves_both_as_they_were(old, monkeypatch):
    before, write = contents(old), writing.write_bytes

    def fail(path, data):
        if path.name == "params.yaml":
            raise UserError("params.yaml can't be written")
        write(path, data)

    monkeypatch.setattr(writing, "write_bytes", fail)
    with pytest.raises(UserError, match="can't be written"):
        upgrade.main(yes=True)
    assert contents(old) == before


def test_what_was_edited_while_it_asked_is_kept(old, monkeypatch):
    def answer():
        with (old / "params.yaml").open("a") as file:
            file.write("# an idea\n")
        return "yes\n"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin.readline", answer, raising=False)
    monkeypatch.setattr("surefoot.base.terminal.is_terminal", lambda stream: True)
    before = contents(old)
    with pytest.raises(UserError, match=r"nothing was written: params.yaml was changed since"):
        upgrade.main(yes=False)
    assert contents(old) == before | {"params.yaml": before["params.yaml"] + b"# an idea\n"}


def test_a_signal_right_after_a_file_was_written_leaves_both_as_they_were(old, monkeypatch):
    before, write = contents(old), writing.write_bytes

    def stopped(path, data):
        monkeypatch.setattr(writing, "write_bytes", write)
        write(path, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "write_bytes", stopped)
    with pytest.raises(KeyboardInterrupt):
        upgrade.main(yes=True)
    assert contents(old) == before


def test_a_wrong_value_of_the_users_is_told_and_hinders_nothing(old, capsys):
    (old / "params.yaml").write_text((old / "params.yaml").read_text().replace("  lr: 0.01\n", "  lr: fast\n"))
    upgrade.main(yes=True)
    assert "warning: params.yaml:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda here: (here / "src/surefoot").mkdir(parents=True), "this is a clone"),
        (lambda here: (here / "params.yaml").write_text("surefoot: 3.0.0\n"), "it is of 3.0.0, and 2.0.0 is installed"),
        (lambda here: (here / "params.yaml").write_text("a: [\n"), "params.yaml:2: not valid YAML"),
        (lambda here: (here / "dvc.yaml").write_bytes(b"\xff"), "dvc.yaml: can't be read"),
        (
            lambda here: (here / "dvc.yaml").write_text("stages: {a: {cmd: b}}\n"),
            "dvc.yaml: it has no stage of Surefoot's",
        ),
    ],
)
def test_what_is_refused_changes_nothing(old, change, said):
    change(old)
    before = contents(old)
    with pytest.raises(UserError, match=said):
        upgrade.main(yes=True)
    assert contents(old) == before
