"""`surefoot init`: what it refuses, what it finds in data, and that it writes all or nothing."""

import gzip
import os
import struct
import subprocess
import sys
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from surefoot.commands.init import command, write_files
from surefoot.params.params_yaml import load_params
from tests.helpers import PROJECT, call_surefoot

NEW = ["dvc.yaml", "params.yaml", "src/networks/mine.py", "data/raw/README.md", "data/raw/digits.csv"]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    path = tmp_path / "für sich"
    path.mkdir()
    monkeypatch.chdir(path)
    git("init", "--quiet")
    return path


@pytest.fixture
def init(monkeypatch, capfd, keep_process):
    return partial(call_surefoot, monkeypatch, capfd, "init")


def git(*arguments, cwd=None):
    subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True)


def files(path):
    """All files and links but Git's own, with their bytes."""
    return {
        found.relative_to(path).as_posix(): found.read_bytes()
        for found in path.rglob("*")
        if found.is_file() and ".git" not in found.parts
    }


def refused(result):
    code, out, err = result
    assert (code, out) == (2, ""), result
    assert err.startswith("error: ") and 1 <= len(err.splitlines()) <= 2, err
    return err


def table(path, rows=100, **columns):
    """A CSV file with a target, a number and a category; and what is given."""
    columns = {"y": [f"c{n % 3}" for n in range(rows)], "a": [n * n % 17 / 4 for n in range(rows)]} | columns
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_example(repository, init):
    code, out, err = init()
    assert (code, err) == (0, ""), err
    assert {*NEW, ".gitignore", ".dvcignore", ".dvc/config"} <= files(repository).keys()
    assert load_params(repository / "params.yaml").batch.shape == (1, 8, 8)
    assert len((repository / "dvc.yaml").read_text().splitlines()) < 60
    assert (repository / "data/raw/digits.csv").read_bytes() == (PROJECT / "data/raw/digits.csv").read_bytes()
    assert not out.count("uncommitted") and "next: " in out


def test_without_git(tmp_path, monkeypatch, init):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert "is in no Git repository" in refused(init())
    assert files(tmp_path) == {}


def test_a_dirty_tree_is_allowed_and_said(repository, init):
    mine = repository / "mine.txt"
    mine.write_text("mine")
    git("add", "mine.txt")
    git("commit", "--quiet", "--message=mine")
    mine.write_text("changed")
    code, out, _ = init()
    assert code == 0
    assert "there were changes that aren't committed; they are as they were" in out
    assert mine.read_text() == "changed"


def test_new_files_of_the_users_are_no_changes(repository, init):
    (repository / "mine.txt").write_text("mine")
    assert "there were changes" not in init()[1]


@pytest.mark.parametrize("ignored", [None, ("", "env"), ("env", "*")])
def test_an_environment_that_git_does_not_ignore_is_said(repository, init, monkeypatch, ignored):
    (repository / "env").mkdir()
    (repository / "env/pyvenv.cfg").touch()
    if ignored:
        (repository / ignored[0] / ".gitignore").write_text(ignored[1] + "\n")
    monkeypatch.setattr(sys, "prefix", str(repository / "env"))
    code, out, err = init("ml")
    assert code == 0, err
    assert ("Git doesn't ignore env, where Surefoot is installed: add /env/ to .gitignore, as" in out) == (not ignored)


@pytest.mark.parametrize("name", [name for name in NEW if name != "dvc.yaml"])
def test_an_existing_file_is_not_overwritten(repository, init, name):
    (repository / name).parent.mkdir(parents=True, exist_ok=True)
    (repository / name).write_text("mine")
    before = files(repository)
    assert name in refused(init())
    assert files(repository) == before


@pytest.mark.parametrize("name", ["data/prepared/mine.csv", "reports/plots/mine.png", "models/model.safetensors"])
def test_what_dvc_would_remove_is_in_the_way(repository, init, name):
    """DVC empties an output before the stage runs, also of files that Git doesn't have."""
    (repository / name).parent.mkdir(parents=True)
    (repository / name).write_text("mine")
    err = refused(init())
    assert "already, and nothing is overwritten" in err and any(str(p) in err for p in (name, name.rpartition("/")[0]))
    assert files(repository) == {name: b"mine"}
    assert init("apart")[0] == 0


def test_beside_a_pipeline_it_goes_into_a_folder_of_its_own(repository, init):
    (repository / "dvc.yaml").write_text("stages: {mine: {cmd: true}}\n")
    code, out, err = init()
    assert code == 0, err
    assert (repository / "dvc.yaml").read_text() == "stages: {mine: {cmd: true}}\n"
    assert {f"training/{name}" for name in NEW} <= files(repository).keys()
    assert "the pipeline lies in" in out and "then, in training: " in out
    assert "surefoot upgrade" in refused(init("training"))
    assert "surefoot upgrade" in refused(init())


def test_lines_of_ignore_files_are_added(repository, init):
    (repository / ".gitignore").write_text("/models/\nmine")
    assert init()[0] == 0
    lines = (repository / ".gitignore").read_text().splitlines()
    assert lines[:2] == ["/models/", "mine"]
    assert lines.count("/models/") == 1 and "/.surefoot/" in lines


def test_a_directory_that_cannot_be_written_to(repository, init, monkeypatch):
    """As root, who runs these tests, may write everywhere, the system's refusal is made."""
    real = os.mkdir

    def refuse(path, *arguments, **options):
        if str(path).endswith("networks"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", refuse)
    (repository / ".gitignore").write_text("mine\n")
    before = files(repository)
    assert "can't be written" in refused(init())
    assert files(repository) == before
    assert not (repository / "data").exists()


def test_where_dvc_refuses_nothing_stays(repository, init, monkeypatch):
    monkeypatch.setattr(command, "_initialize_dvc", lambda *_: (_ for _ in ()).throw(command.UserError("no")))
    (repository / ".gitignore").write_text("mine\n")
    before = files(repository)
    assert refused(init()) == "error: no\n"
    assert files(repository) == before
    assert sorted(path.name for path in repository.iterdir()) == [".git", ".gitignore"]


def test_why_dvc_refuses_is_told(repository, init):
    (repository / ".dvc").write_text("mine")
    assert refused(init()).startswith("error: DVC can't be initialized: unexpected error - [Errno 17] File exists: ")
    assert files(repository) == {".dvc": b"mine"}


def test_a_subfolder_of_a_monorepo_gets_dvc_for_itself(repository, init):
    assert init("ml/digits")[0] == 0
    place = repository / "ml/digits"
    assert (place / ".dvc").is_dir() and not (repository / ".dvc").exists()
    done = subprocess.run([sys.executable, "-m", "dvc", "stage", "list"], cwd=place, capture_output=True, text=True)
    assert "evaluate" in done.stdout, done


def test_a_subfolder_has_the_dvc_above_it(repository, init):
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], check=True)
    assert f"DVC's root is {repository}" in init("ml/digits")[1]
    assert not (repository / "ml/digits/.dvc").exists()


def test_a_submodule_is_a_repository(repository, init, tmp_path):
    git("init", "--quiet", str(tmp_path / "other"))
    git("commit", "--quiet", "--allow-empty", "--message=start", cwd=tmp_path / "other")
    git("-c", "protocol.file.allow=always", "submodule", "add", "--quiet", str(tmp_path / "other"), "inner")
    code, _, err = init("inner")
    assert code == 0, err
    assert (repository / "inner/.dvc").is_dir() and not (repository / ".dvc").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "none.csv", "--target", "y"], "--data none.csv: there is no such file or directory"),
        (["--data", "there.csv", "--target", "z"], "has no column 'z'"),
        (["--data", "there.csv"], "--target must name the column to predict; it has y, a"),
        (["--target", "y"], "--data FILE"),
        (["--data", ".", "--target", "y"], "itself; name the file"),
        (["--data", "there.csv", "--target", "y", "--labels", "there.csv"], "only of npz, npy, idx files"),
        (["--data", "there.npy"], "--labels must name"),
        (["there.csv"], "is a file; name a directory"),
    ],
)
def test_bad_arguments(repository, init, arguments, told):
    table(repository / "there.csv")
    np.save("there.npy", np.zeros((30, 2)))
    before = files(repository)
    assert told in refused(init(*arguments))
    assert files(repository) == before


def test_an_error_names_what_there_is_to_be_set(repository, init):
    """There is no params.yaml yet."""
    (repository / "t.csv").write_text("a;b;y\n" + "1;2;3\n" * 50)
    one, other = refused(init("--data", "t.csv", "--target", "a;b;y")).splitlines()
    assert "nothing to learn from" in one or "delimiter" in one
    assert other == (
        "prepare.csv.delimiter is a key of params.yaml: `surefoot init` without --data writes one, to be changed"
    )
    assert "has no column 'z' (--target)" in refused(init("--data", "t.csv", "--target", "z")).splitlines()[0]
    idx(repository / "x-images-idx3-ubyte", np.zeros((9, 2, 2)))
    assert "--labels must name it" in refused(init("--data", "x-images-idx3-ubyte"))


def test_a_file_outside_of_the_repository_is_copied(repository, init, tmp_path):
    outside = table(tmp_path / "elsewhere/flüge 2.csv")
    code, out, err = init("--data", outside, "--target", "y")
    assert code == 0, err
    assert "copied, as they lie outside of DVC's root" in out
    assert load_params(repository / "params.yaml").prepare.source == "data/raw/flüge 2.csv"
    assert (repository / "data/raw/flüge 2.csv").read_bytes() == outside.read_bytes()


def test_a_file_in_the_repository_stays_where_it_lies_and_is_watched(repository, init):
    table(repository / "tables/mine.csv")
    assert init("--data", "tables/mine.csv", "--target", "y")[0] == 0
    assert load_params(repository / "params.yaml").prepare.source == "tables/mine.csv"
    assert "deps: [data/raw, tables/mine.csv" in (repository / "dvc.yaml").read_text()
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "src")}
    done = subprocess.run(
        [sys.executable, "-m", "surefoot.stages.prepare"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done
    assert "DVC doesn't watch" not in done.stdout


def test_a_name_that_dvc_would_read_otherwise(repository, init):
    table(repository / "a${b}.csv")
    assert "rename it, or move it to data/raw" in refused(init("--data", "a${b}.csv", "--target", "y"))
    (repository / "data/raw").mkdir(parents=True)
    (repository / "a${b}.csv").rename(repository / "data/raw/a${b}.csv")
    assert init("--data", "data/raw/a${b}.csv", "--target", "y")[0] == 0
    done = subprocess.run([sys.executable, "-m", "dvc", "stage", "list"], capture_output=True, text=True)
    assert "evaluate" in done.stdout, done


def test_what_a_table_is(repository, init):
    many = 100
    table(
        repository / "data/raw/t.csv",
        many,
        y=[n % 2 for n in range(many)],
        id=range(1, many + 1),
        name=[f"name {n}" for n in range(many)],
        same=["x"] * many,
        age=["" if n % 5 == 0 else n % 30 for n in range(many)],
        place=["NA" if n == 3 else f"p{n % 4}" for n in range(many)],
    )
    code, out, err = init("--data", "data/raw/t.csv", "--target", "y")
    assert code == 0, err
    prepare = load_params(repository / "params.yaml").prepare
    assert prepare.task == "binary"
    assert prepare.ignore == ("id", "name", "same")
    assert (prepare.missing.numeric, prepare.missing.category, prepare.missing.boolean) == ("mean", "constant", "error")
    assert prepare.missing.indicator and prepare.missing.target == "error"
    assert "'id' (counts the rows)" in out and "numeric: mean (20 missing)" in out


def test_more_columns_that_teach_nothing_than_params_yaml_can_name(repository, init):
    table(repository / "t.csv", 40, **{f"{n} {'long ' * 60}": ["x"] * 40 for n in range(450)})
    before = files(repository)
    assert "of its columns 450 teach nothing" in refused(init("--data", "t.csv", "--target", "y"))
    assert files(repository) == before


def test_numbers_are_measured_where_there_are_many(repository, init):
    table(repository / "t.csv", y=[n * n % 71 / 7 for n in range(100)])
    code, _, _ = init("--data", "t.csv", "--target", "y")
    assert code == 0
    assert load_params(repository / "params.yaml").prepare.task == "regression"


@pytest.mark.parametrize(("delimiter", "decimal"), [(";", "."), (";", ","), ("\t", ","), ("|", ".")])
def test_another_delimiter_and_decimal(repository, init, delimiter, decimal):
    text = table(repository / "t.csv", y=[n * n % 71 / 7 for n in range(100)]).read_text()
    (repository / "t.csv").write_text(text.replace(",", delimiter).replace(".", decimal))
    code, out, err = init("--data", "t.csv", "--target", "y")
    assert code == 0, err
    prepare = load_params(repository / "params.yaml").prepare
    assert (prepare.csv.delimiter, prepare.csv.decimal, prepare.task) == (delimiter, decimal, "regression")
    assert "numeric: 'a'" in out and "as it then has a column 'y'" in out


def test_a_wrong_target_of_a_table_with_another_delimiter(repository, init):
    text = table(repository / "t.csv").read_text()
    (repository / "t.csv").write_text(text.replace(",", ";"))
    assert "it has y;a; its values seem to stand between ';'" in refused(init("--data", "t.csv", "--target", "z"))


def test_a_float_target_of_parquet_and_rows_without_one(repository, init):
    values = [None if n == 7 else float(n % 3) + 0.5 for n in range(90)]
    pq.write_table(pa.table({"y": values, "a": [n % 11 for n in range(90)]}), "t.parquet")
    assert init("--data", "t.parquet", "--target", "y")[0] == 0
    prepare = load_params(repository / "params.yaml").prepare
    assert (prepare.task, prepare.missing.target) == ("regression", "drop")


def test_a_class_of_few_rows_is_split_by_row(repository, init):
    table(repository / "t.csv", y=["rare"] * 3 + ["a"] * 50 + ["b"] * 47, a=[n % 7 for n in range(100)])
    code, out, err = init("--data", "t.csv", "--target", "y")
    assert code == 0, err
    assert load_params(repository / "params.yaml").prepare.split.by == "row"
    assert "prepare.split: by row, as there are too few rows of rare" in out


def test_an_image_folder_of_different_sizes(repository, init):
    for label in ("cats", "dogs"):
        (repository / "pictures" / label).mkdir(parents=True)
        for n in range(20):
            Image.new("L", (100 + n, 90), n).save(repository / "pictures" / label / f"{n}.png")
    code, _, err = init("--data", "pictures")
    assert code == 0, err
    params = load_params(repository / "params.yaml")
    assert (params.prepare.images.resize, params.prepare.images.mode) == ((64, 64), "L")
    assert (params.prepare.target, params.prepare.task, params.batch.shape) == ("class", "binary", (1, 64, 64))


def idx(path, values):
    values = np.asarray(values, np.uint8)
    data = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def test_an_idx_pair_with_its_test_rows(repository, init, tmp_path):
    for split, rows in (("train", 100), ("t10k", 20)):
        idx(tmp_path / f"m/{split}-images-idx3-ubyte.gz", np.arange(rows * 12).reshape(rows, 4, 3) % 251)
        idx(tmp_path / f"m/{split}-labels-idx1-ubyte.gz", np.arange(rows) % 5)
    code, _, err = init("--data", tmp_path / "m/train-images-idx3-ubyte.gz")
    assert code == 0, err
    params = load_params(repository / "params.yaml")
    assert params.prepare.labels == "data/raw/train-labels-idx1-ubyte.gz"
    assert params.prepare.test_source == "data/raw/t10k-images-idx3-ubyte.gz"
    assert params.batch.shape == (1, 4, 3)
    assert len(list((repository / "data/raw").glob("*.gz"))) == 4


def test_npz_arrays_by_their_names_and_rows_with_nan(repository, init):
    x = np.arange(300.0).reshape(100, 3) % 7
    x[4, 1] = np.nan
    np.savez("m.npz", x_train=x, y_train=np.arange(100) % 2, x_test=x[20:60], y_test=np.arange(40) % 2)
    code, _, err = init("--data", "m.npz")
    assert code == 0, err
    prepare = load_params(repository / "params.yaml").prepare
    assert (prepare.arrays.inputs, prepare.arrays.test_targets) == ("x_train", "y_test")
    assert prepare.missing.numeric == "drop"


def test_what_fails_after_files_were_written_leaves_none(tmp_path, monkeypatch):
    files_to_write = write_files.FilesToWrite({"a/b": "x", "c": "y"}, {"d": ["z"]})

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_files.write_all(tmp_path, files_to_write, fail)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_came_meanwhile_is_kept(tmp_path, monkeypatch):
    def copy(source, path):
        path.write_text("copied")
        (tmp_path / "new/params.yaml").write_text("mine")

    monkeypatch.setattr(write_files, "_copy", copy)
    to_write = write_files.FilesToWrite({"params.yaml": "x"}, {}, {"data/raw/a.csv": tmp_path / "a.csv"})
    with pytest.raises(write_files.UserError, match="is there by now"):
        write_files.write_all(tmp_path / "new", to_write, lambda: None)
    assert files(tmp_path) == {"new/params.yaml": b"mine"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["params.yaml"]


def test_a_link_and_a_file_that_were_there_are_as_before(tmp_path):
    (tmp_path / "kept").write_text("mine\n")
    (tmp_path / "linked").symlink_to("kept")
    (tmp_path / "dangling").symlink_to("nowhere/yet")
    lines = {"linked": ["x"], "dangling": ["y"]}

    def fail():
        assert (tmp_path / "kept").read_text() == "mine\nx\n"
        assert (tmp_path / "dangling").read_text() == "y\n"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_files.write_all(tmp_path, write_files.FilesToWrite({}, lines), fail)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "kept", "linked"]
    assert (tmp_path / "linked").is_symlink() and (tmp_path / "dangling").is_symlink()
    assert (tmp_path / "kept").read_text() == "mine\n"


def test_a_directory_where_an_ignore_file_belongs_leaves_nothing_behind(repository, init):
    (repository / ".gitignore").mkdir()
    assert ".gitignore can't be written" in refused(init())
    assert [path.name for path in repository.iterdir() if path.name != ".git"] == [".gitignore"]


def test_where_dvc_is_stopped_half_way_it_is_not_there(repository, init, monkeypatch):
    def stopped(*_, **__):
        (repository / ".dvc").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(command.subprocess, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        command._initialize_dvc(repository, repository)
    assert not (repository / ".dvc").exists()


def test_a_directory_by_another_way_has_the_dvc_above_it(repository, init, monkeypatch):
    """Not the one that is passed on the way there."""
    (repository / "one/.dvc").mkdir(parents=True)
    (repository / "real").mkdir()
    (repository / "link").symlink_to("real")
    monkeypatch.chdir(repository / "one")
    assert init("../other")[0] == 0
    assert (repository / "other/.dvc").is_dir()
    assert init("../link/inner")[0] == 0
    assert (repository / "real/inner/.dvc").is_dir()
