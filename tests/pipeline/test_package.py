"""The wheel and the source distribution, each installed into an environment of its own, and used elsewhere."""

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from surefoot.base import code_digests
from tests.helpers import PROJECT
from tests.packaged import installed, run

PARAMS = """
prepare: {source: data/raw/digits.csv, target: digit}
batch: {shape: [1, 8, 8]}
train: {model: {factory: FACTORY}, epochs: 2, lr: 0.05}
"""
STAGES = ("start_from", "prepare", "batch", "train")


def repository(path, factory, empty_store):
    """Somebody's own repository, without Surefoot's source."""
    (path / "data/raw").mkdir(parents=True)
    shutil.copy(PROJECT / "data/raw/digits.csv", path / "data/raw")
    shutil.copy(empty_store, path)
    (path / "params.yaml").write_text(PARAMS.replace("FACTORY", factory))
    run("git", "init", "--quiet", cwd=path)
    run("git", "add", "params.yaml", cwd=path)
    run("git", "commit", "--quiet", "--message", "start", cwd=path)
    return path


def code_of(path):
    return {file.relative_to(path).as_posix() for file in path.rglob("*.py")}


def test_the_wheel_has_surefoot_and_its_networks_and_nothing_else(dist):
    (wheel,) = dist.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    source = {f"surefoot/{name}" for name in code_of(PROJECT / "src/surefoot")}
    networks = {f"surefoot/networks/{name}" for name in code_of(PROJECT / "src/networks")}
    assert names == source | networks | {
        "surefoot/params/schema.json",
        *(f"surefoot/templates/{name}" for name in ("pipeline.yaml", "raw-README.md", "gitignore", "dvcignore")),
        *(f"surefoot/templates/{name}" for name in ("digits.csv", "README.md")),
    }


def test_the_source_distribution_has_what_the_wheel_is_made_of(dist):
    (source,) = dist.glob("*.tar.gz")
    with tarfile.open(source) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {f"src/surefoot/{name}" for name in code_of(PROJECT / "src/surefoot")} <= names
    assert {f"src/networks/{name}" for name in code_of(PROJECT / "src/networks")} <= names
    assert not {name for name in names if name.startswith(("tests", "src/sources"))}
    assert {name for name in names if name.startswith("data/raw/")} == {"data/raw/README.md", "data/raw/digits.csv"}


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_either_installs_and_runs(dist, tmp_path, empty_store, kind):
    python = installed(*dist.glob(kind), tmp_path / "environment")
    theirs = repository(tmp_path / "theirs", "surefoot.networks.cnn:cnn", empty_store)
    surefoot = str(python.parent / "surefoot")
    assert "verify" in run(surefoot, "--help", cwd=theirs)
    run(surefoot, "check", cwd=theirs)
    assert len(run(surefoot, "fingerprint", cwd=theirs).strip()) == 64
    place = run(python, "-c", "import surefoot.networks.cnn as it; print(it.__file__)", cwd=theirs)
    assert place.startswith(str(tmp_path / "environment"))
    assert "64 inputs, 10 classes" in run(python, "-m", "surefoot.stages.prepare", cwd=theirs)


def test_a_repository_of_ones_own_trains_to_the_same_bits(wheel_python, tmp_path, empty_store):
    theirs = repository(tmp_path / "their own, für sich", "surefoot.networks.mlp:mlp", empty_store)
    clone = repository(tmp_path / "clone", "networks.mlp:mlp", empty_store)
    for stage in STAGES:
        run(wheel_python, "-m", f"surefoot.stages.{stage}", cwd=theirs)
        run(sys.executable, "-m", f"surefoot.stages.{stage}", cwd=clone, PYTHONPATH=str(PROJECT / "src"))
    for made in ("models/model.safetensors", "reports/history.csv"):
        assert (theirs / made).read_bytes() == (clone / made).read_bytes()
    of_theirs, of_clone = (json.loads((place / "models/run.json").read_bytes()) for place in (theirs, clone))
    assert of_theirs.keys() == of_clone.keys()


def test_an_update_that_changes_no_arithmetic_trains_nothing_anew(wheel_python, tmp_path, empty_store):
    """The version isn't in the keys, but what the network's source does is."""
    theirs = repository(tmp_path / "theirs", "surefoot.networks.mlp:mlp", empty_store)
    tell = "import json; from surefoot.base import code_digests as digests;"
    tell += "own, packages = digests.modules_behind(['surefoot.networks.mlp:mlp']);"
    tell += "print(json.dumps([digests.module_digests(own), sorted(packages)]))"
    digests, packages = json.loads(run(wheel_python, "-c", tell, cwd=theirs))
    assert digests == {
        "surefoot.networks": code_digests.module_digest(PROJECT / "src/networks/__init__.py"),
        "surefoot.networks.mlp": code_digests.module_digest(PROJECT / "src/networks/mlp.py"),
    }
    assert packages == ["torch"]


def test_a_network_by_its_name_in_a_clone_is_hinted_at(wheel_python, tmp_path, empty_store):
    theirs = repository(tmp_path / "theirs", "networks.table:table", empty_store)
    surefoot = str(wheel_python.parent / "surefoot")
    done = subprocess.run([surefoot, "check"], cwd=theirs, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.endswith("there is no module networks; did you mean surefoot.networks.table:table?\n")
