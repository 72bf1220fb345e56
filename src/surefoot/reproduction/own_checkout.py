"""A checkout of the project as it is now, to run stages in while the workspace is edited, or runs something else.

It is the workspace's in all that is shared: DVC's cache, the trajectory store, MLflow's store and the virtual
environment.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from surefoot.base import paths, terminal, writing
from surefoot.base.errors import CannotSay, UserError
from surefoot.reproduction import checkout, dvc_settings
from surefoot.reproduction.provenance import CodeState

# Of an experiment or a stage of DVC's in which this process may be: those there are others.
NOT_PASSED_ON = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "DVC_STAGE")


def project_in(repository: Path) -> Path:
    """Where the project is in a checkout.

    Raises:
        UserError: Git is out of reach.
    """
    try:
        return repository / checkout.place_in_repository(Path.cwd())[1]
    except CannotSay as error:
        raise UserError(f"the code can't be checked out: {error}") from None


def check_out_now(repository: Path, source: CodeState) -> None:
    """Make the checkout: the commit with its changes, what Git doesn't have of the data, and DVC's data.

    Args:
        repository: the new directory.
        source: the state of the workspace, which has a commit.

    Raises:
        UserError: Git or DVC can't bring it.
    """
    assert source.commit
    workspace = Path.cwd()
    try:
        top, below = checkout.place_in_repository(workspace)
        with writing.new_directory(repository) as beside:
            checkout.check_out(top, beside, source.commit, source.patch)
            for name in (*source.left_out, *source.data):  # which the patch doesn't have
                if (top / name).is_file():
                    (beside / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(top / name, beside / name)
            _share_cache(beside / below, checkout.dvc_root_in(beside / below, beside))
            _tell_of_repositories(top, source)
    except CannotSay as error:
        raise UserError(f"the code can't be checked out: {error}") from None


def _tell_of_repositories(top: Path, source: CodeState) -> None:
    """Say of which repositories in this one, such as submodules, a checkout hasn't all that is here."""
    others = [name.rstrip("/") for name in source.left_out if (top / name).is_dir()]
    if others:
        terminal.warn(
            f"the checkout lacks what isn't committed in {terminal.first_few(others)}: a Git repository of its own"
        )


def _share_cache(place: Path, root: Path) -> None:
    """Let DVC, whose root in the checkout is `root`, use the workspace's cache, and bring the data that the project at
    `place` tracks with it.
    """
    try:
        _, cache = dvc_settings.workspace_settings()
        dvc_settings.add_settings(root, {"cache": {"dir": cache}})
    except dvc_settings.SettingsError as error:
        raise UserError(f"DVC's settings can't be read: {error}") from None
    tracked = [str(path.relative_to(place)) for path in place.rglob("*.dvc") if path.is_file()]
    if tracked:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "checkout", *tracked],
            cwd=place,
            env=environment_there(),
            capture_output=True,
            check=False,
        )
        if done.returncode:  # what lacks may be of no use to any stage; if not, DVC says so again
            said = " ".join(done.stderr.decode(errors="replace").split())
            terminal.warn(f"DVC can't bring all its data to the checkout: {said}")


def path_with_python() -> str:
    """PATH with this Python first: a stage's command may name it `python` alone."""
    return os.pathsep.join([str(Path(sys.executable).parent), *filter(None, [os.environ.get("PATH")])])


def environment_there(**more: str) -> dict[str, str]:
    """The environment of a process in such a checkout."""
    kept = {name: value for name, value in checkout.plain_environment().items() if name not in NOT_PASSED_ON}
    here = {
        "DVC_ROOT": str(paths.dvc_root()),  # the store, MLflow's and the virtual environment are the workspace's
        "PATH": path_with_python(),
        "DVC_NO_ANALYTICS": "true",
        "SUREFOOT_STORE": paths.shared_store() or str(paths.trajectory_store().resolve()),
        # `src` first, so that the checkout's code runs, then what this process was given.
        "PYTHONPATH": os.pathsep.join(["src", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]),
    }
    return {**kept, **here, **more}
