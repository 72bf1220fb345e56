"""A repository without Surefoot's source, which uses the package: DVC, MLflow and `surefoot verify` in it."""

import json
import re
import shutil
import subprocess

import pytest

from tests import packaged
from tests.helpers import PROJECT, Workspace

PARAMS = """\
surefoot: VERSION
seed: 0
prepare: {source: data/raw/digits.csv, target: digit}
batch: {size: 64, shape: [1, 8, 8]}
train:
  start_from:
  model: {factory: surefoot.networks.mlp:mlp}
  epochs: 2
  lr: 0.05
"""


class Own(Workspace):
    """Such a repository; `.venv` in it is an environment that has the package."""

    def surefoot(self, *arguments, **options):
        return self.run(str(self / ".venv/bin/surefoot"), *arguments, **options)

    def dvc(self, *arguments, **options):
        return self.run(str(self / ".venv/bin/python"), "-m", "dvc", *arguments, **options)


def stages(below):
    """dvc.yaml of the clone, as somebody has it who doesn't have the source."""
    text = (PROJECT / "dvc.yaml").read_text()
    environment = "/".join(filter(None, ["$DVC_ROOT", below, ".venv/bin"]))
    text = text.replace('"$DVC_ROOT"/.venv/bin/python', f'PATH="{environment}:$PATH" python')
    text = re.sub(r",\s+src/surefoot/[^],]+", "", text)
    text = re.sub(r"params: \[(?!params\.yaml)", "params: [surefoot, ", text)
    return text.replace("src/sources", "src")


def make_own(top, below, wheel_python, empty_store):
    """In a subfolder of a larger repository, if `below` names one; DVC is of the whole."""
    path = top / below
    (path / "data/raw").mkdir(parents=True)
    (path / "src").mkdir()
    shutil.copy(PROJECT / "data/raw/digits.csv", path / "data/raw")
    shutil.copy(empty_store, path / "mlflow.db")
    (path / ".venv").symlink_to(wheel_python.parents[1])
    own = Own(path)
    version = own.run(str(wheel_python), "-c", "from importlib.metadata import version; print(version('surefoot'))")
    (path / "params.yaml").write_text(PARAMS.replace("VERSION", version.out.strip()))
    (path / "dvc.yaml").write_text(stages(below))
    (path / "src/mine.py").write_text("")
    (path / ".gitignore").write_text((PROJECT / ".gitignore").read_text())
    own.run("git", "init", "--quiet", str(top))
    subprocess.run([wheel_python, "-m", "dvc", "init", "--quiet"], cwd=top, check=True)
    own.git("add", "--all")
    own.git("commit", "--quiet", "--message=start")
    return own


@pytest.mark.slow
def test_a_subfolder_of_a_monorepo_in_a_path_of_any_letters(wheel_python, tmp_path, empty_store):
    """Stages, commands and checkouts have one store and one MLflow: the subfolder's."""
    top = tmp_path / "Größe & more"
    own = make_own(top, "ml/für ziffern", wheel_python, empty_store)
    own.dvc("repro")
    own.edit("train.epochs", "3")
    own.surefoot("run", "--in-checkout")
    longer, first = own.trainings()
    assert [run.data.params["train.epochs"] for run in (longer, first)] == ["3", "2"]
    assert {run.info.status for run in (longer, first)} == {"FINISHED"}
    assert {run.data.tags["mlflow.source.name"] for run in (longer, first)} == {"surefoot.stages.train"}
    done = own.surefoot("verify", first.info.run_id)
    assert "identical" in done.out, done
    (own / "notebooks").mkdir()
    program = "import os; os.chdir('notebooks'); import surefoot; result = surefoot.run({'train.epochs': 3})"
    asked = own.run(str(own / ".venv/bin/python"), "-c", f"{program}; print(result.run_id, type(result.model))")
    assert asked.out.endswith(f"\n{longer.info.run_id} <class 'torch.nn.modules.container.Sequential'>\n")
    assert len(own.trainings()) == 2
    assert not list(top.glob("*.db")) and not (top / ".surefoot").exists()


@pytest.fixture(scope="module")
def newer_python(tmp_path_factory):
    """Of an environment that has a package of a later version."""

    def renumber(source):
        text = (source / "pyproject.toml").read_text()
        (source / "pyproject.toml").write_text(re.sub(r'(?m)^version = ".*"', 'version = "99.0.0"', text))

    place = tmp_path_factory.mktemp("newer")
    packaged.build(place / "source", renumber)
    return packaged.installed(*(place / "source/dist").glob("*.whl"), place / "environment")


@pytest.mark.slow
def test_a_run_of_an_older_package_is_made_again_by_that(wheel_python, newer_python, dist, tmp_path, empty_store):
    own = make_own(tmp_path / "own", "", wheel_python, empty_store)
    own.dvc("repro")
    (run,) = own.trainings()
    path = own.artifact(run, "environment/surefoot.json")
    recorded = json.loads(path.read_text())
    assert recorded.keys() == {"version", "code", "file"}
    assert str(tmp_path) not in str(recorded)
    # The environment is brought up to date, and the old wheel may be gone.
    (own / ".venv").unlink()
    (own / ".venv").symlink_to(newer_python.parents[1])

    def verified(exit_code, said, **changed):
        path.write_text(json.dumps(recorded | changed))
        done = own.surefoot("verify", run.info.run_id, check=False, PIP_NO_INDEX="1", PIP_FIND_LINKS=links)
        assert (done.code, said in done.out) == (exit_code, True), done

    made_by = f"Surefoot {recorded['version']} of {recorded['file']}"
    links = ""
    verified(3, f"cannot say: it was made by {made_by}, which can't be installed here")
    links = str(dist)
    verified(0, f"installing {made_by}, which made it")
    verified(3, "and pip finds other code of that version", code="0" * 64)
    verified(3, "Surefoot 98.0.0 of ", version="98.0.0")
    verified(3, "code would run that this repository's history doesn't hold", version="98.0.0")
    elsewhere = {"git": "https://example.org/surefoot", "commit": "0" * 40, "code": "0" * 64}
    verified(3, f"Surefoot {recorded['version']} of https://example.org/surefoot at {'0' * 40}", **elsewhere)
    verified(3, "environment/surefoot.json in MLflow is damaged: git: ", **elsewhere | {"git": "ext::sh -c x"})


@pytest.mark.slow
def test_an_upgrade_runs_the_stages_again_and_trains_nothing_anew(wheel_python, newer_python, tmp_path, empty_store):
    own = make_own(tmp_path / "own", "", wheel_python, empty_store)
    own.dvc("repro")
    (own / ".venv").unlink()
    (own / ".venv").symlink_to(newer_python.parents[1])
    (run,) = own.trainings()
    version = re.search(r"(?m)^surefoot==(.*)$", own.artifact(run, "environment/requirements.txt").read_text())[1]
    refused = own.surefoot("check", check=False)
    assert refused.code == 2
    assert f"surefoot: it is of Surefoot {version}, and 99.0.0 is installed: install" in refused.err, refused
    assert f"install {version} from where that came, file:///" in refused.err
    assert "`surefoot upgrade` brings params.yaml and dvc.yaml to 99.0.0" in refused.err
    assert own.surefoot("upgrade", check=False).code == 2
    done = own.surefoot("upgrade", "--yes")
    assert "-surefoot: " in done.out and "+surefoot: 99.0.0\n" in done.out
    again = own.dvc("repro")
    assert "Running stage 'prepare'" in again.out
    assert "epochs 1-2 restored" in again.out
    (same,) = own.trainings()
    assert same.info.run_id == run.info.run_id
    # And back: the file is newer than the package then.
    (own / ".venv").unlink()
    (own / ".venv").symlink_to(wheel_python.parents[1])
    refused = own.surefoot("upgrade", "--yes", check=False)
    assert (refused.code, f"it is of 99.0.0, and {version} is installed, which is older" in refused.err) == (2, True)


def test_an_experiment_in_a_temporary_copy_has_the_store_of_the_subfolder(wheel_python, tmp_path, empty_store):
    top = tmp_path / "two words"  # DVC can write the settings of such a copy in ASCII alone
    own = make_own(top, "ml/more words", wheel_python, empty_store)
    own.dvc("repro")
    done = own.dvc("exp", "run", "--temp", "--set-param", "train.epochs=3")
    assert "epochs 1-2 restored, training 3-3" in done.out, done.out
    assert [run.data.params["train.epochs"] for run in own.trainings()] == ["3", "2"]
