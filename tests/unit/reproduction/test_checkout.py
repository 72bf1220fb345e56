"""A commit and a patch, checked out elsewhere without a trace."""

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from scmrepo.git import Git

from surefoot.base.errors import CannotSay
from surefoot.commands.verify.remake import Remake
from surefoot.reproduction import checkout, provenance
from surefoot.reproduction.scratch import Scratch


def git(path, *arguments):
    return subprocess.run(
        ["git", "-c", "protocol.file.allow=always", *arguments], cwd=path, check=True, capture_output=True, text=True
    ).stdout


def tree(path):
    """What lies in a directory, but for Git's own: path, content, and whether it can be executed."""
    found = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if ".git" not in file.relative_to(path).parts and (file.is_file() or file.is_symlink()):
            found[name] = file.readlink() if file.is_symlink() else (file.read_bytes(), os.access(file, os.X_OK))
    return found


def everything(path):
    """All files, Git's too, with their bytes. (Git touches the time of an object that it would have written again.)"""
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    path = tmp_path / "repository"
    (path / "deep").mkdir(parents=True)
    for name in ("kept", "modified", "deleted", "deep/down"):
        (path / name).write_text(f"{name}\n" * 5)
    (path / "binary").write_bytes(bytes(range(256)))
    git(path, "init", "--quiet", "--initial-branch=main")
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message=start")
    monkeypatch.chdir(path)
    return path


def make_dirty(path):
    (path / "modified").write_text("no line end")
    (path / "deleted").unlink()
    (path / "binary").write_bytes(bytes(range(255, -1, -1)))
    (path / "deep" / "new é.txt").write_text("new\n")
    (path / "new binary").write_bytes(b"\0\1\2" * 100)
    (path / "empty").touch()
    (path / "link").symlink_to("kept")
    (path / "kept").chmod(0o755)


def remade(repository, tmp_path):
    source = provenance.code_state()
    before = everything(repository)
    checkout.check_out(repository, tmp_path / "again", source.commit, source.patch)
    assert everything(repository) == before, "nothing there has changed, Git's own files included"
    return tmp_path / "again"


def test_a_dirty_tree(repository, tmp_path):
    make_dirty(repository)
    assert tree(remade(repository, tmp_path)) == tree(repository)


def test_the_files_of_a_patch_are_told_from_a_subfolder_too(repository):
    make_dirty(repository)
    patch = provenance.code_state().patch
    assert {"modified", "deep/new é.txt"} < set(checkout.patched(repository, patch))
    assert checkout.patched(repository / "deep", patch) == checkout.patched(repository, patch)


def test_an_earlier_commit(repository, tmp_path):
    before = tree(repository)
    commit = git(repository, "rev-parse", "HEAD").strip()
    make_dirty(repository)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message=two")
    checkout.check_out(repository, tmp_path / "again", commit)
    assert tree(tmp_path / "again") == before


def test_a_missing_commit(repository, tmp_path):
    with pytest.raises(CannotSay, match=r"^its commit 0000.* isn't in this repository; `git fetch` it"):
        checkout.check_out(repository, tmp_path / "again", "0" * 40)


def test_a_patch_of_another_commit(repository, tmp_path):
    patch = b"--- a/kept\n+++ b/kept\n@@ -1 +1 @@\n-something else\n+new\n"
    with pytest.raises(CannotSay, match=r"^`git .*apply.*` fails: error: patch failed: kept:1"):
        checkout.check_out(repository, tmp_path / "again", git(repository, "rev-parse", "HEAD").strip(), patch)


@pytest.mark.parametrize("name", [".venv", ".dvc", ".dvc/config.local", ".dvc/tmp"])
def test_nothing_is_written_through_a_link_of_the_recorded_code(repository, tmp_path, name):
    for needed in ("dvc.yaml", "params.yaml"):
        (repository / needed).touch()
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message=a pipeline")
    outside = tmp_path / "outside"
    outside.mkdir()
    (repository / name).parent.mkdir(exist_ok=True)
    (repository / name).symlink_to(outside)
    git(repository, "add", "--all")
    patch = git(repository, "diff", "--cached", "--binary").encode()
    with Scratch() as scratch, pytest.raises(CannotSay, match=f"its code has a {name} of its own"):
        Remake(scratch).check_out(git(repository, "rev-parse", "HEAD").strip(), patch)


def test_nothing_that_this_shell_says_of_a_training_reaches_one_that_is_made_again(repository, monkeypatch):
    """So it takes one process, whatever the run took, and waits for no other machine."""
    for needed in ("dvc.yaml", "params.yaml"):
        (repository / needed).touch()
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message=a pipeline")
    for name in ("PROCESSES", "NODES", "RENDEZVOUS", "STORE"):
        monkeypatch.setenv(f"SUREFOOT_{name}", "2")
    with Scratch() as scratch, (scratch.path / "said").open("w+") as said:
        remake = Remake(scratch)
        remake.check_out(git(repository, "rev-parse", "HEAD").strip(), b"")
        remake.use_environment(Path(sys.prefix))
        shown = "import os; print([name for name in os.environ if name.startswith('SUREFOOT_')])"
        assert remake.python("-c", shown, out=said).wait() == 0
        said.seek(0)
        assert said.read() == "[]\n"


def test_a_shallow_clone(repository, tmp_path, monkeypatch):
    first = git(repository, "rev-parse", "HEAD").strip()
    (repository / "kept").write_text("later\n")
    git(repository, "commit", "--quiet", "--all", "--message=two")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{repository}", str(clone))
    monkeypatch.chdir(clone)
    make_dirty(clone)
    assert tree(remade(clone, tmp_path)) == tree(clone)
    with pytest.raises(CannotSay, match="isn't in this repository"):
        checkout.check_out(clone, tmp_path / "other", first)


def test_a_linked_worktree(repository, tmp_path, monkeypatch):
    git(repository, "worktree", "add", "--quiet", str(tmp_path / "linked"))
    monkeypatch.chdir(tmp_path / "linked")
    make_dirty(tmp_path / "linked")
    assert tree(remade(tmp_path / "linked", tmp_path)) == tree(tmp_path / "linked")


@pytest.mark.parametrize("setting", ["true", "input"])
def test_line_ends_are_as_they_are_in_the_workspace(repository, tmp_path, setting):
    git(repository, "config", "core.autocrlf", setting)
    (repository / "kept").write_bytes(b"one\r\ntwo\r\n")
    (repository / "new").write_bytes(b"one\r\ntwo\r\n")
    again = remade(repository, tmp_path)
    if setting == "true":
        assert (again / "kept").read_bytes() == (again / "new").read_bytes() == b"one\r\ntwo\r\n"
        assert (again / "deep/down").read_bytes() == b"deep/down\r\n" * 5, "as a checkout there would have it"
    else:
        assert (again / "kept").read_bytes() == b"one\ntwo\n"


def test_what_the_user_has_set_for_git_has_no_part_in_it(repository, tmp_path, monkeypatch):
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for hook in ("post-checkout", "post-index-change", "reference-transaction"):
        (hooks / hook).write_text(f"#!/bin/sh\ntouch {tmp_path}/hook-ran\n")
        (hooks / hook).chmod(0o755)
    template = tmp_path / "template"
    shutil.copytree(hooks, template / "hooks")
    settings = {
        "core": ("fsmonitor = true", f"hooksPath = {hooks}"),
        "init": (f"templateDir = {template}",),
        "apply": ("whitespace = error-all",),
    }
    settings |= {"diff": ("context = 0", "submodule = log", "relative = true")}
    (tmp_path / "gitconfig").write_text(
        "".join(f"[{section}]\n" + "".join(f"{line}\n" for line in lines) for section, lines in settings.items())
    )
    make_dirty(repository)
    (repository / "modified").write_text("modified\nand white space \n" + "modified\n" * 4)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    git(repository, "config", "core.hooksPath", str(hooks))
    assert tree(remade(repository, tmp_path)) == tree(repository)
    assert not (tmp_path / "hook-ran").exists()


def test_from_within_a_git_hook(repository, tmp_path, monkeypatch):
    """Git sets GIT_DIR and more for hooks; followed, they would make us work on the user's own repository."""
    source = provenance.code_state()
    before = everything(repository)
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(repository / ".git/index"))
    monkeypatch.setenv("GIT_WORK_TREE", str(repository))
    checkout.check_out(repository, tmp_path / "again", source.commit, source.patch)
    assert everything(repository) == before
    assert "GIT_DIR" not in checkout.plain_environment()
    monkeypatch.undo()
    assert tree(tmp_path / "again") == tree(repository)


def test_submodules(repository, tmp_path):
    library = tmp_path / "library"
    shutil.copytree(repository, library)
    git(repository, "submodule", "--quiet", "add", str(library), "lib")
    git(repository, "commit", "--quiet", "--message=with a submodule")
    (library / "kept").write_text("later\n")
    git(library, "commit", "--quiet", "--all", "--message=later")
    git(repository / "lib", "pull", "--quiet")
    make_dirty(repository)  # beside another commit of the submodule
    assert provenance.code_state().left_out == ()
    assert tree(remade(repository, tmp_path)) == tree(repository)
    (repository / "lib/kept").write_text("not committed there\n")
    assert provenance.code_state().left_out == ("lib",)


def test_a_project_that_is_a_submodule(repository, tmp_path, monkeypatch):
    """Its settings say where its files are, which DVC's library takes for those of the checkout, too."""
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "--quiet")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repository), "ml/project")
    inner = outer / "ml/project"
    monkeypatch.chdir(inner)
    (inner / "kept").write_text("changed\n")
    source = provenance.code_state()
    assert checkout.place_in_repository(inner)[1] == ""
    checkout.check_out(inner, tmp_path / "again", source.commit, source.patch)
    assert tree(tmp_path / "again") == tree(inner)
    for place in (inner, tmp_path / "again"):
        with closing(Git(str(place), search_parent_directories=False)) as scm:
            assert Path(scm.root_dir) == place.resolve()


def test_outside_of_git(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(
        CannotSay, match="Git is out of reach here, so the run's code can't be had: not a git repository"
    ):
        checkout.place_in_repository(tmp_path)


def test_without_git(repository, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotSay, match="git can't be run: No such file or directory"):
        checkout.place_in_repository(repository)


def test_a_project_below_the_top_of_its_repository(repository, monkeypatch):
    project = repository / "ml" / "digits"
    project.mkdir(parents=True)
    (project / "dvc.yaml").write_text("stages: {}\n")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message=a project")
    monkeypatch.chdir(project)
    (project / "params.yaml").write_text("train: {lr: 0.1}\n")
    (repository / "kept").write_text("changed above it\n")
    top, below = checkout.place_in_repository(project)
    assert (top.resolve(), below) == (repository.resolve(), "ml/digits/")
    assert checkout.place_in_repository(repository) == (repository, "")
    source = provenance.code_state()
    with Scratch() as scratch:
        remake = Remake(scratch)
        remake.check_out(source.commit, source.patch)
        assert remake.params == {"train.lr": 0.1}
        assert (remake.path / "../../kept").read_text() == "changed above it\n"
    with Scratch() as scratch, pytest.raises(CannotSay, match=r"at its commit \w+ there is no params\.yaml"):
        Remake(scratch).check_out(source.commit, b"")


def test_an_older_commit_has_its_commands_at_the_top(tmp_path):
    (tmp_path / "src/surefoot").mkdir(parents=True)
    assert checkout.command_module(tmp_path, "search.trial") == "surefoot.search.trial"
    (tmp_path / "src/surefoot/commands").mkdir()
    assert checkout.command_module(tmp_path, "search.trial") == "surefoot.commands.search.trial"
