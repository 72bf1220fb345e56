"""Surefoot as a package, for tests: built, and installed into an environment of its own."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv

from tests.helpers import PROJECT

BUILT_FROM = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "src", "data/raw")


def run(*command, cwd, **environment):
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(path, prepare=lambda path: None):
    """What `make dist` makes, in the new directory: the wheel, from the source distribution; in `path / "dist"`.

    `prepare` may change the copy of the source before.
    """
    path.mkdir()
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in BUILT_FROM:
        copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
        (path / name).parent.mkdir(exist_ok=True)
        copy(PROJECT / name, path / name, **({"ignore": skipped} if (PROJECT / name).is_dir() else {}))
    prepare(path)
    run(sys.executable, "-m", "build", "--no-isolation", cwd=path)


def installed(file, place):
    """The Python of a new environment that has the package, and beside it the packages that are here."""
    venv.create(place, with_pip=False)
    python = place / "bin/python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place).strip()
    # Of a directory on the path no .pth is read: this clone's src isn't there.
    (place / site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check"]
    run(*pip, "--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir", str(file), cwd=place)
    return python
