"""Packages: which are others, and an environment that has the recorded ones."""

import platform
import sys
import zipfile
from importlib.metadata import DistributionFinder, MetadataPathFinder, version
from pathlib import Path

import pytest

from surefoot.base.errors import CannotSay
from surefoot.reproduction import packages
from surefoot.reproduction.scratch import Scratch
from tests.helpers import PROJECT


def test_other_packages():
    recorded = "torch==2.13.0+cpu\nNumPy==2.4.6\nruamel_yaml==0.19.1\npandas==1.0\nscipy==1.0\ndvc==3.0\n"
    installed = "torch==2.13.0+cu130\nnumpy==2.4.6\nruamel.yaml==0.19.0\npandas==2.0\nscipy==2.0\n"
    assert packages.other_packages(recorded, installed, {"torch", "scipy", "dvc", "ruamel.yaml", "numpy", "lost"}) == [
        "dvc (recorded 3.0, now not installed)",
        "ruamel-yaml (recorded 0.19.1, now 0.19.0)",
        "scipy (recorded 1.0, now 2.0)",  # pandas is others' business
    ]
    assert packages.other_packages("", installed, {"torch"}) == []


def test_this_environment_is_as_it_is():
    direct = packages.direct_dependencies(PROJECT)
    assert {"torch", "dvc", "mlflow-skinny", "ruamel-yaml"} <= direct
    assert not direct & {"pytest", "onnx", "surefoot"}
    assert packages.other_packages(packages.installed_packages(), packages.installed_in(Path(sys.prefix)), direct) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[project]\nname = "surefoot"\ndependencies = ["Scikit_Learn==1.0"]\n', {"scikit-learn"}),
        ('[project]\nname = "theirs"\ndependencies = ["scipy"]\n', None),  # the user's own project
        ("[project", None),
        ("[project]\nname = 'surefoot'\n", None),
        ('[project]\nname = "surefoot"\ndependencies = ["no requirement"]\n', None),
        ("project = 1\n", None),
        (None, None),
    ],
)
def test_dependencies_of_surefoot_of_another_time(tmp_path, monkeypatch, text, found):
    monkeypatch.setattr(packages, "requires", lambda name: ["torch==1.0", "pytest==1.0; extra == 'dev'"])
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text)
    assert packages.direct_dependencies(tmp_path) == (found or {"torch"})


def test_names_and_versions_are_those_of_importlib(tmp_path, monkeypatch):
    odd = {
        "one-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: One.two\nVersion: 1.0+cpu \n\nVersion: 9\n",
        "two.egg-info/PKG-INFO": "Metadata-Version: 1.0\nName: two\nVersion: 2\n",
        "three-3.dist-info/METADATA": "Version: 3\nSummary: it says\n  Name: nothing\nName: three\n",
        "four-4.dist-info/METADATA": "Name:\nVersion: 4\n",
        "five-5.dist-info/METADATA": "",
    }
    for name, text in odd.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    # Python's own finder: a package may have brought another, which refuses an empty file.
    listed = MetadataPathFinder.find_distributions(DistributionFinder.Context(path=sys.path))
    found = [(each.name, each.version) for each in listed if each.name]
    assert {("One.two", "1.0+cpu "), ("two", "2"), ("three", "3")} <= set(found)
    assert packages.installed_packages() == "".join(sorted({f"{name}=={version}\n" for name, version in found}))


def test_another_python():
    assert packages.other_python("3.11.2", "3.11.9") == []
    assert packages.other_python(None, "3.11.9") == []
    assert packages.other_python("3.11.2", "3.12.2") == ["Python (recorded 3.11.2, now 3.12.2)"]


def wheel(directory, name, number):
    """A wheel, by hand."""
    about = f"{name}-{number}.dist-info"
    with zipfile.ZipFile(directory / f"{name}-{number}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", f"version = {number!r}\n")
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
        file.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{about}/RECORD", f"{name}.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")


@pytest.mark.slow
def test_a_recorded_environment_is_built(tmp_path, monkeypatch, capfd):
    for number in ("1.0", "2.0"):
        wheel(tmp_path, "footing", number)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", "src")
    with Scratch() as scratch:
        built = packages.build_environment(
            scratch, "footing==1.0+cpu\npip==1.0\nsurefoot==0.1.0\n", platform.python_version()
        )
        assert built.is_relative_to(scratch.path)
        assert "footing==1.0\n" in packages.installed_in(built)
        assert "torch" not in packages.installed_in(built)
        capfd.readouterr()
        with pytest.raises(CannotSay, match="can't be built again; what pip says is above"):
            packages.build_environment(scratch, "footing==3.0\n", platform.python_version())
    assert "footing==3.0" in capfd.readouterr().err


def test_a_python_that_is_not_here(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        Scratch() as scratch,
        pytest.raises(CannotSay, match=r"made with Python 3\.99\.1; there is no python3\.99 on the PATH"),
    ):
        packages.build_environment(scratch, f"torch=={version('torch')}\n", "3.99.1")


@pytest.mark.parametrize(
    "line",
    [
        *(
            "-e git+https://127.0.0.1/x#egg=a==1",
            "-i http://127.0.0.1/index",
            "--find-links=./here==1",
            "-r other.txt",
            "./here",
            "/tmp/a==1",
        ),
        *(
            "https://127.0.0.1/a-1.0.whl",
            "a @ https://127.0.0.1/a.whl",
            "a==1; python_version > '3'",
            "a[extra]==1",
            "a>=1",
            "a==1 --hash=sha256:0",
            "a == 1",
        ),
        *(
            "a==1.*",
            "a===1",
            "-c==1",
            "a==-e",
            "a",
            "==1",
            "a==",
            "a==1 # comment",
            "a==1\x00",
            "a==${HOME}",
            "file:///a==1",
            "a==1\\",
        ),
    ],
)
def test_only_name_and_version_reach_pip(line):
    found, others = packages.pins(f"torch==2.13.0+cpu\n{line}\nruamel_yaml==0.19.1\n")
    assert (found, others) == ({"torch": "2.13.0+cpu", "ruamel-yaml": "0.19.1"}, [line])
