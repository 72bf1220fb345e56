import hashlib
import os
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from surefoot.reproduction import dvc_lock, packages, patches, provenance, raw_data


def git(path, *arguments):
    return subprocess.run(["git", *arguments], cwd=path, check=True, capture_output=True, text=True).stdout


def tree(path):
    """What lies in a directory, but for Git's own: path, content, and whether it can be executed."""
    found = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if not name.startswith(".git/") and (file.is_file() or file.is_symlink()):
            found[name] = file.readlink() if file.is_symlink() else (file.read_bytes(), os.access(file, os.X_OK))
    return found


@pytest.fixture
def repository(tmp_path, monkeypatch):
    path = tmp_path / "repository"
    path.mkdir()
    (path / "deep").mkdir()
    for name in ("kept", "modified", "deleted", "staged", "both", "deep/down", "moved", "mode"):
        (path / name).write_text(f"{name}\n" * 5)
    (path / "binary").write_bytes(bytes(range(256)))
    (path / ".gitignore").write_text("/ignored\n")
    git(path, "init", "--quiet")
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message=start")
    monkeypatch.chdir(path)
    return path


def applied(repository, tmp_path, source):
    """A clone of the commit with the patch on it."""
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(repository), str(clone))
    git(clone, "checkout", "--quiet", source.commit)
    (tmp_path / "patch").write_bytes(source.patch)
    git(clone, "apply", "--binary", str(tmp_path / "patch"))
    return clone


def test_a_clean_tree(repository):
    source = provenance.code_state()
    assert source.commit == git(repository, "rev-parse", "HEAD").strip()
    assert (source.patch, source.left_out, source.data) == (b"", (), ())


@pytest.mark.parametrize(("store", "expected"), [("made/store", b""), ("here", b""), (".", b"/here/chain/KEY.json")])
def test_the_trajectory_store_is_no_change(repository, monkeypatch, store, expected):
    """Else each training would change the state of the code; but a store that is the directory itself hides nothing."""
    monkeypatch.setenv("SUREFOOT_STORE", store)
    for name in ("made/store/chain", "here/chain"):
        (repository / name).mkdir(parents=True)
    (repository / ("made/store" if store == "made/store" else "here") / "chain/KEY.json").write_text("{}")
    patch = provenance.code_state().patch
    assert expected in patch
    assert bool(patch) == bool(expected)


def test_a_dirty_tree_can_be_made_again(repository, tmp_path):
    with (repository / "modified").open("a") as file:
        file.write("more")  # and no line end
    (repository / "deleted").unlink()
    (repository / "staged").write_text("staged anew\n")
    (repository / "both").write_text("staged\n")
    git(repository, "add", "staged", "both")
    (repository / "both").write_text("and changed again\n")
    git(repository, "mv", "moved", "deep/moved here")
    (repository / "mode").chmod(0o755)
    (repository / "binary").write_bytes(bytes(range(255, -1, -1)))
    (repository / "deep" / "untracked é ü.txt").write_text("new\n")
    (repository / "untracked binary").write_bytes(b"\0\1\2" * 100)
    (repository / "empty").touch()
    (repository / "link").symlink_to("kept")
    (repository / "added").write_text("added\n")
    git(repository, "add", "added")
    (repository / "ignored").write_text("no part of it\n")
    status, index = git(repository, "status", "--porcelain=v2"), (repository / ".git" / "index").read_bytes()

    source = provenance.code_state()

    assert (repository / ".git" / "index").read_bytes() == index, "the user's index is left alone"
    assert git(repository, "status", "--porcelain=v2") == status
    assert source.left_out == ()
    wanted = {name: what for name, what in tree(repository).items() if name != "ignored"}
    assert tree(applied(repository, tmp_path, source)) == wanted


@pytest.mark.parametrize("committed", [True, False])
def test_the_lock_file_is_no_change_of_the_code(repository, committed):
    (repository / "dvc.lock").write_text("stages: {}\n")
    if committed:
        git(repository, "add", "dvc.lock")
        git(repository, "commit", "--quiet", "--message=run")
        (repository / "dvc.lock").write_text("stages: {a: {}}\n")
    assert provenance.code_state() == provenance.CodeState(git(repository, "rev-parse", "HEAD").strip())


def test_only_an_untracked_file(repository, tmp_path):
    (repository / "new").write_text("new\n")
    source = provenance.code_state()
    assert (applied(repository, tmp_path, source) / "new").read_text() == "new\n"


def test_a_change_in_the_second_of_the_commit(repository, tmp_path):
    """Of the same size, too: Git then knows of it only by the time of its index."""
    git(repository, "config", "core.trustctime", "false")
    then = (1_700_000_000, 1_700_000_000)
    os.utime(repository / "modified", then)
    git(repository, "update-index", "--refresh")
    (repository / "modified").write_text("MODIFIED\n" * 5)
    for name in ("modified", ".git/index"):
        os.utime(repository / name, then)
    assert (applied(repository, tmp_path, provenance.code_state()) / "modified").read_text() == "MODIFIED\n" * 5


def test_what_is_large_is_named_and_left_out(repository, monkeypatch):
    monkeypatch.setattr(provenance, "UNTRACKED_BYTES", 1000)
    (repository / "large").write_bytes(b"x" * 1001)
    (repository / "deep" / "large").write_bytes(b"x" * 1001)
    (repository / "small").write_bytes(b"x" * 1000)
    source = provenance.code_state()
    assert source.left_out == ("deep/large", "large")
    assert b"+++ b/small\n" in source.patch
    assert b"large" not in source.patch


def test_from_a_directory_below_the_top(repository, monkeypatch):
    (repository / "modified").write_text("changed\n")
    (repository / "new").write_text("new\n")
    whole = provenance.code_state()
    monkeypatch.chdir(repository / "deep")
    assert provenance.code_state() == whole


def without_commit(why):
    source = provenance.code_state()
    assert (source.commit, source.patch, source.left_out, source.data) == (None, b"", (), ())
    assert why in source.trouble


def test_outside_of_git(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    without_commit("not a git repository")


def test_without_git(repository, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    without_commit("git isn't installed")


def test_before_the_first_commit(tmp_path, monkeypatch):
    git(tmp_path, "init", "--quiet")
    monkeypatch.chdir(tmp_path)
    without_commit("HEAD names no commit: none was made yet")


def test_a_repository_of_another_user(repository, monkeypatch):
    """As of a mount in a container: Git refuses to look into it."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    without_commit(
        f"detected dubious ownership in repository at '{repository}' To add an exception for this directory, call: git"
        " config --global --add"
    )


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("HEAD", "nonsense\n", "not a git repository"),
        ("HEAD", "ref: refs/heads/gone\n", "HEAD names no commit"),
        ("HEAD", "1" * 40 + "\n", "HEAD names no commit"),
        ("index", "nonsense", "index file"),
        ("config", "[core]\nbare = true\nrepositoryformatversion = 0\n", "this operation must be run in a work tree"),
        ("config", "[core\n", "bad config line"),
    ],
)
def test_a_damaged_or_bare_repository(repository, name, text, why, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(repository.parent))
    (repository / ".git" / name).write_text(text)
    without_commit(why)


def test_a_commit_whose_files_are_gone(repository):
    shutil.rmtree(repository / ".git/objects")
    (repository / ".git/objects").mkdir()
    without_commit("HEAD names no commit")


def test_a_shallow_clone(repository, tmp_path, monkeypatch):
    (repository / "modified").write_text("again\n")
    git(repository, "commit", "--quiet", "--all", "--message=more")
    git(tmp_path, "clone", "--quiet", "--depth=1", repository.as_uri(), "shallow")
    monkeypatch.chdir(tmp_path / "shallow")
    assert provenance.code_state().commit == git(repository, "rev-parse", "HEAD").strip()


# --- data, which Git doesn't have


def test_raw_data_are_no_part_of_the_patch(repository, monkeypatch):
    raw = repository / "data/raw"
    (raw / "deep").mkdir(parents=True)
    (raw / "deep/new.csv").write_text("a\n1\n")
    (raw / "ignored.csv").write_text("b\n")
    (raw / "large.csv").write_text("c" * 2_000_000)
    (raw / "tracked.csv").write_text("d\n")
    (repository / ".gitignore").write_text("/ignored\n/data/raw/ignored.csv\n/data/raw/kept.csv\n")
    git(repository, "add", "data/raw/tracked.csv", ".gitignore")
    git(repository, "commit", "--quiet", "--message=data")
    (raw / "kept.csv").write_text("DVC has it\n")
    (raw / "kept.csv.dvc").write_text("outs: []\n")
    (raw / "tracked.csv").write_text("d\n2\n")
    (repository / "code.py").write_text("new = 1\n")
    source = provenance.code_state()
    assert source.data == ("data/raw/deep/new.csv", "data/raw/ignored.csv", "data/raw/large.csv")
    assert source.left_out == ()
    assert [line for line in source.patch.decode().splitlines() if line.startswith("+++")] == [
        "+++ b/code.py",
        "+++ b/data/raw/kept.csv.dvc",
        "+++ b/data/raw/tracked.csv",
    ]
    before = raw_data.data_digest(source.data)
    assert raw_data.data_digest(source.data) == before != ""
    with monkeypatch.context() as patched:
        patched.setattr(raw_data.digests, "sha256_file", None)
        assert raw_data.data_digest(source.data) == before, "what was read once isn't read again"
    (raw / "ignored.csv").write_text("other\n")
    assert raw_data.data_digest(source.data) != before
    assert raw_data.data_digest(()) == ""


def test_a_source_elsewhere_is_data_too(repository, tmp_path):
    (repository / "mine.csv").write_text("a\n")
    (tmp_path / "outside.csv").write_text("a\n")
    params = {
        "prepare.source": "mine.csv",
        "prepare.test_source": str(tmp_path / "outside.csv"),
        "prepare.labels": None,
        "prepare.validation_source": "sklearn:wine",
    }
    source = provenance.code_state(raw_data.raw_places(params))
    assert (source.data, source.patch) == (("mine.csv",), b"")
    assert provenance.code_state().data == ()


def test_a_patch_is_kept_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digest = patches.keep_patch(b"diff")
    assert patches.keep_patch(b"diff") == digest
    assert patches.kept_patch(digest) == b"diff"
    (kept,) = (tmp_path / ".surefoot/patches").iterdir()
    kept.write_bytes(b"damaged")
    assert patches.kept_patch(digest) is None
    assert patches.keep_patch(b"diff") == digest
    assert patches.kept_patch(digest) == b"diff"
    patches.keep_patch(b"")
    assert patches.kept_patch("../../etc/passwd") is None
    assert len(list(kept.parent.iterdir())) == 1


def test_a_users_own_way_to_show_differences_has_no_part_in_it(repository, tmp_path):
    git(repository, "config", "diff.external", "false")
    git(repository, "config", "diff.noprefix", "true")
    git(repository, "config", "diff.renames", "copies")
    git(repository, "config", "color.ui", "always")
    git(repository, "config", "core.quotepath", "on")
    (repository / "modified").write_text("changed\n")
    source = provenance.code_state()
    assert (applied(repository, tmp_path, source) / "modified").read_text() == "changed\n"


@pytest.mark.parametrize("cache", [None, "../elsewhere"])
def test_an_output_as_it_was_committed(repository, cache):
    digest = hashlib.md5(b"then").hexdigest()
    (repository / "dvc.lock").write_text(f"stages:\n  evaluate:\n    outs:\n    - path: a.json\n      md5: {digest}\n")
    (repository / ".dvc").mkdir()
    assert dvc_lock.committed_output("evaluate", Path("a.json"), b"now") is None
    git(repository, "add", "dvc.lock")
    git(repository, "commit", "--quiet", "--message=run")
    assert dvc_lock.committed_output("evaluate", Path("a.json"), b"now") is None  # not in the cache
    commit = git(repository, "rev-parse", "--short", "HEAD").strip()
    assert dvc_lock.committed_output("evaluate", Path("a.json"), b"then") == (commit, b"then")  # it is the same
    if cache:
        (repository / ".dvc/config").write_text(
            "[core]\n    analytics = false\n['remote \"r\"']\n    url = x\n[cache]\n    dir = nowhere\n"
        )
        (repository / ".dvc/config.local").write_text(f"[cache]\n    dir = {cache}\n")
    place = repository / ".dvc" / (cache or "cache") / "files" / "md5" / digest[:2]
    place.mkdir(parents=True)
    (place / digest[2:]).write_bytes(b"then")
    (repository / "dvc.lock").write_text("what isn't committed has no part in it")
    assert dvc_lock.committed_output("evaluate", Path("a.json"), b"now") == (commit, b"then")
    assert dvc_lock.committed_output("evaluate", Path("b.json"), b"now") is None


@pytest.mark.parametrize(
    "lock", ["", "[", "stages: 3", "stages: {evaluate: {outs: [{path: a.json, md5: ../../../etc/passwd}]}}"]
)
def test_a_lock_that_says_nothing(repository, lock):
    (repository / "dvc.lock").write_text(lock)
    git(repository, "add", "dvc.lock")
    git(repository, "commit", "--quiet", "--message=run")
    assert dvc_lock.committed_output("evaluate", Path("a.json"), b"now") is None


def test_packages_are_named_with_their_versions():
    lines = packages.installed_packages().splitlines()
    assert f"torch=={version('torch')}" in lines
    assert lines == sorted(set(lines))
