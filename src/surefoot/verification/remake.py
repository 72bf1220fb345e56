"""A run made again, in a temporary directory: its commit, its uncommitted changes, its data, its environment.

Not a Git worktree, which would leave an entry in the repository if the process is killed: a repository of its own that borrows
the objects of this one. DVC gets a cache of its own there, and this workspace's only to read from.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path
from typing import IO, Any

from packaging.requirements import Requirement
from ruamel.yaml import YAML

from surefoot import provenance
from surefoot.params import flatten
from surefoot.verification.recorded import CannotSay

Process = subprocess.Popen[bytes]

GIT = ("git", "-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false")
NEVER_RECORDED = ("pip", "setuptools", "wheel", "surefoot")


class Remake:
    """A place in the directory `scratch` to make a run again in."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.workspace = Path.cwd()
        top = scratch / "repository"
        self.path = top / _output("git", "rev-parse", "--show-prefix")
        self._top = top

    def check_out(self, commit: str, patch: bytes) -> None:
        """Bring in the code of a commit, with uncommitted changes.

        Raises:
            CannotSay: the commit isn't in this repository.
        """
        objects = Path(_output("git", "rev-parse", "--path-format=absolute", "--git-path", "objects"))
        shallow = objects.with_name("shallow")
        _run([*GIT, "init", "--quiet", "--template=", str(self._top)])
        (self._top / ".git/objects/info").mkdir(parents=True, exist_ok=True)
        (self._top / ".git/objects/info/alternates").write_text(f"{objects}\n")
        if shallow.is_file():
            shutil.copy(shallow, self._top / ".git")
        git = [*GIT, "-C", str(self._top)]
        if subprocess.run([*git, "cat-file", "-e", f"{commit}^{{commit}}"], capture_output=True, check=False).returncode:
            raise CannotSay(f"its commit {commit} isn't in this repository; `git fetch` it, if there is another that has it")
        _run([*git, "checkout", "--quiet", "--detach", commit])
        if patch:
            _run([*git, "apply", "--binary", "--whitespace=nowarn"], given=patch)
        if not (self.path / "dvc.yaml").is_file():
            raise CannotSay(f"at its commit {commit} there is no dvc.yaml")

    def use_environment(self, environment: Path) -> None:
        """Let the stages run with the Python of a virtual environment."""
        (self.path / ".venv").symlink_to(environment)

    def set_up_dvc(self) -> None:
        """Give DVC a cache of its own, with what this workspace's has of the data, or else a remote."""
        local = self.workspace / ".dvc/config.local"
        if local.is_file():  # where to find remotes, and passwords
            shutil.copy(local, self.path / ".dvc")
        self.dvc("config", "--quiet", "--local", "cache.dir", str(self.scratch / "cache"))
        tracked = [name for name in _output("git", "-C", str(self.path), "ls-files", "--cached", "--others", "--", "*.dvc").splitlines() if name]
        if not tracked:
            return
        cache = _output(str(self.path / ".venv/bin/dvc"), "cache", "dir", cwd=self.workspace)
        self.dvc("remote", "add", "--quiet", "--local", "surefoot-workspace", cache)
        # What the cache lacks the remote may have; what neither has is missing.
        if self.dvc("pull", "--quiet", "--remote", "surefoot-workspace", *tracked, check=False, quiet=True) and self.dvc(
            "pull", "--quiet", *tracked, check=False
        ):
            raise CannotSay(f"its data is neither in DVC's cache nor in a remote: {', '.join(tracked)}")

    def reproduce(self, stage: str, *, store: Path) -> None:
        """Run a stage and those before it.

        Raises:
            CannotSay: one of them fails.
        """
        stores = {"SUREFOOT_STORE": str(store), "MLFLOW_TRACKING_URI": f"sqlite:///{self.scratch / 'mlflow.db'}"}
        # --quiet: DVC would say to commit its dvc.lock. What the stages print is shown.
        done = self.dvc("repro", "--quiet", "--force", "--no-commit", stage, check=False, variables=stores)
        if done:
            raise CannotSay(f"the stages that made it fail when they are run again (dvc repro: exit code {done}); what they say is above")

    @property
    def params(self) -> dict[str, Any]:
        """The params there, by dotted key, as they are written."""
        return flatten(YAML(typ="safe").load(self.path / "params.yaml"))

    def dvc(self, *arguments: str, check: bool = True, quiet: bool = False, variables: dict[str, str] | None = None) -> int:
        """Run DVC there; returns its exit code."""
        code = run([str(self.path / ".venv/bin/dvc"), *arguments], self.path, self.environment(**variables or {}), quiet=quiet)
        if check and code:
            raise RuntimeError(f"dvc {' '.join(arguments)}: exit code {code}")
        return code

    def environment(self, **more: str) -> dict[str, str]:
        """The environment variables of processes there: nothing of this workspace's."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SUREFOOT_", "MLFLOW_", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX"))
            and name not in ("DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME", "PYTHONPATH")
        }
        return {**kept, "DVC_SITE_CACHE_DIR": str(self.scratch / "dvc"), "DVC_NO_ANALYTICS": "true", "PYTHONDONTWRITEBYTECODE": "1", **more}

    def python(self, *arguments: str, out: IO[str] | None = None) -> Process:
        """Start Python there, as a stage would be."""
        python = [str(self.path / ".venv/bin/python"), *arguments]
        return start(python, self.path, self.environment(PYTHONPATH="src", DVC_ROOT=str(self.path)), out=out)


def start(command: list[str], cwd: Path, environment: dict[str, str], out: int | IO[str] | None = None, err: int | None = None) -> Process:
    """Start a process and those that it starts as a group, so that all of them can be stopped."""
    return subprocess.Popen(command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)


def run(command: list[str], cwd: Path, environment: dict[str, str], quiet: bool = False) -> int:
    """Run a process; it ends with this one, however that ends. Returns its exit code."""
    nowhere = subprocess.DEVNULL if quiet else None
    return finish([start(command, cwd, environment, nowhere, nowhere)])


def finish(processes: list[Process]) -> int:
    """Wait for processes; returns the first exit code that isn't 0. If this process is stopped, they are killed."""
    try:
        return next((code for code in [process.wait() for process in processes] if code), 0)
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def other_packages(recorded: str, installed: str, versions: dict[str, str]) -> list[str]:
    """Which packages that a run's bits could depend on have other versions: each with both.

    Those are the direct dependencies of Surefoot and what the network's code imports (`versions`, from the run's origin).

    Args:
        recorded: `environment/requirements.txt` of the run, lines `name==version`.
        installed: the same of the environment that it would be made again in.
        versions: packages in the origin of the run.
    """
    matter = {_normal(name) for name in versions} | {_normal(Requirement(line).name) for line in requires("surefoot") or [] if "extra ==" not in line}
    one, other = _parse(recorded), _parse(installed)
    found = []
    for name in sorted(matter & one.keys()):
        if _public(one[name]) != _public(other.get(name, "")):
            found.append(f"{name} (recorded {one[name]}, now {other.get(name, 'not installed')})")
    return found


def build_environment(scratch: Path, recorded: str, python: str) -> Path:
    """A virtual environment with the recorded packages; takes minutes.

    Args:
        scratch: the directory to make it in.
        recorded: lines `name==version`.
        python: the version of Python, as `3.11.2`; the minor version must be found on the PATH.

    Raises:
        CannotSay: there is no such Python, or pip can't install a package.
    """
    minor = ".".join(python.split(".")[:2])
    found = sys.executable if minor == f"{sys.version_info[0]}.{sys.version_info[1]}" else shutil.which(f"python{minor}")
    if not found:
        raise CannotSay(f"it was made with Python {python}; there is no python{minor} on the PATH")
    environment = scratch / "environment"
    wanted = scratch / "requirements.txt"
    # Without the local part (+cpu): which build of torch fits is for the machine's own settings of pip to say.
    wanted.write_text("".join(f"{name}=={_public(version)}\n" for name, version in _parse(recorded).items() if name not in NEVER_RECORDED))
    print(f"building an environment of {len(wanted.read_text().splitlines())} packages", flush=True)
    pip = [str(environment / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement", str(wanted)]
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if run([found, "-m", "venv", str(environment)], scratch, surroundings) or run(pip, scratch, surroundings):
        raise CannotSay("its environment can't be built again; what pip says is above")
    return environment


def installed_in(environment: Path) -> str:
    """`provenance.packages()` of a virtual environment."""
    if environment.resolve() == Path(sys.prefix).resolve():
        return provenance.packages()
    lister = "from importlib.metadata import distributions\nfor d in distributions(): print(f'{d.name}=={d.version}')"
    return _output(str(environment / "bin/python"), "-I", "-c", lister)


def _parse(requirements: str) -> dict[str, str]:
    pairs = (line.partition("==") for line in requirements.splitlines() if "==" in line)
    return {_normal(name): version for name, _, version in pairs}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _public(version: str) -> str:
    return version.partition("+")[0]


def _output(*command: str, cwd: Path | None = None) -> str:
    return subprocess.run(command, cwd=cwd, capture_output=True, check=True, text=True).stdout.strip()


def _run(command: list[str], given: bytes | None = None) -> None:
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    if done.returncode:
        raise CannotSay(f"`{' '.join(command)}` fails: {' '.join(done.stderr.decode(errors='replace').split())}")
