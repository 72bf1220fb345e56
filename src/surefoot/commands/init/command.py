"""`surefoot init`: the files of a pipeline, written into somebody's own repository."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

from surefoot.base import installation, paths, terminal
from surefoot.base.errors import UserError
from surefoot.base.installation import script
from surefoot.commands.init.look_at_data import look_at_data
from surefoot.commands.init.pipeline import TEMPLATES, environment_below, pipeline_outputs, pipeline_text, template
from surefoot.commands.init.raw_data_named import raw_data_named
from surefoot.commands.init.settings import Settings, example_settings, own_settings
from surefoot.commands.init.write_files import FilesToWrite, refuse_existing, write_all
from surefoot.params.commented_yaml import commented_yaml
from surefoot.params.params_yaml import LARGEST
from surefoot.reproduction.git import GitError, ask_git, run_git

OF_ITS_OWN = "training"
"""The folder that the pipeline goes into where there is a dvc.yaml already: DVC has one a folder."""

OPTION_OF = {"prepare.source": "--data", "prepare.target": "--target", "prepare.labels": "--labels"}
"""What stands for a key of params.yaml."""


def main(directory: str, data: str | None, target: str | None, labels: str | None) -> None:
    """Write what a pipeline needs into a Git repository: for data of the user's, or with digits as an example."""
    place = _own_place(Path(directory))
    top = _top_of_git(place)
    root = _dvc_root(place, top)
    settings = _settings(place, root or place, data, target, labels)
    files = _files(place, root or place, settings)
    refuse_existing(place, files)
    dirty = bool(ask_git("status", "--porcelain", "--untracked-files=no", cwd=top))
    write_all(place, files, lambda: None if root else _initialize_dvc(place, top))
    for line in (*settings.told, *_told(place, files, root, dirty), *_environment_not_ignored(top), _next(place)):
        terminal.print_lines(line)


def _settings(place: Path, root: Path, data: str | None, target: str | None, labels: str | None) -> Settings:
    if data is None:
        if target or labels:
            raise UserError("--target and --labels are of data of yours: name them, too: --data FILE")
        return example_settings(_example())
    if place.resolve().is_relative_to(Path(data).resolve()):
        raise UserError(f"--data {data}: holds {place} itself; name the file or the directory of the data")
    try:
        raw = raw_data_named(Path(data), target, Path(labels) if labels else None)
        return own_settings(raw, look_at_data(raw), place, root)
    except UserError as error:
        raise _as_told_here(error) from None


def _as_told_here(error: UserError) -> UserError:
    """An error of the readers, who name keys of params.yaml, where there is no such file yet."""
    lines = [str(line) for line in error.args]
    for key, option in OPTION_OF.items():
        lines = [re.sub(rf"{re.escape(key)}\b(?!\.)", option, line) for line in lines]
    if found := re.search(r"\bprepare\.[a-z_.]*[a-z]", "\n".join(lines)):
        lines.append(f"{found[0]} is a key of params.yaml: `surefoot init` without --data writes one, to be changed")
    return UserError(*lines)


def _own_place(given: Path) -> Path:
    """The directory that gets the pipeline: the given one, or a folder in it where that has a dvc.yaml.

    Raises:
        UserError: it is no directory, or has a pipeline of Surefoot's already.
    """
    if given.exists() and not given.is_dir():
        raise UserError(f"{given}: is a file; name a directory")
    place = given
    for _ in range(2):
        if not (pipeline := place / "dvc.yaml").exists():
            return place.resolve()
        if b"surefoot.stages." in pipeline.read_bytes():
            raise UserError(f"{pipeline}: is a pipeline of Surefoot's already; `surefoot upgrade` brings it up to date")
        place = given / OF_ITS_OWN
    raise UserError(f"{given} and {place} have a dvc.yaml each; name another folder: `surefoot init DIR`")


def _top_of_git(place: Path) -> Path:
    """The top of the Git repository that a directory, which may not be there yet, is or will be in.

    Raises:
        UserError: there is none.
    """
    there = next(parent for parent in (place, *place.parents) if parent.is_dir())
    try:
        return Path(run_git("rev-parse", "--show-toplevel", cwd=there).decode().removesuffix("\n"))
    except GitError as error:
        if "not a git repository" not in str(error):
            raise UserError(f"{there}: Git is out of reach: {error}") from None
        raise UserError(
            f"{there}: is in no Git repository, which DVC and the record of each run need: `git init` makes one"
        ) from None


def _dvc_root(place: Path, top: Path) -> Path | None:
    """The directory of DVC's, of this repository, that a place is in; None where there is none yet."""
    above = (parent for parent in (place, *place.parents) if parent.resolve().is_relative_to(top.resolve()))
    return next((parent for parent in above if (parent / ".dvc").is_dir()), None)


def _initialize_dvc(place: Path, top: Path) -> None:
    """Below the top, as in one project among several, DVC is of that folder alone."""
    below = ["--subdir"] if place.resolve() != top.resolve() else []
    command = [sys.executable, "-m", "dvc", "init", *below]  # not --quiet, which leaves out what is wrong
    try:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
            said = " ".join((errors or [done.stderr])[0].removeprefix("ERROR: ").split())
            raise UserError(f"DVC can't be initialized: {said}")
    except BaseException:  # half of it would be taken for DVC's root
        shutil.rmtree(place / ".dvc", ignore_errors=True)
        raise


def _example() -> dict[str, Path]:
    """The digits and what is said of them, by the names that they get: in a clone they lie in its data/raw."""
    place = TEMPLATES if installation.is_installed() else TEMPLATES.parents[2] / "data/raw"
    return {"data/raw/digits.csv": place / "digits.csv", "data/raw/README.md": place / "README.md"}


def _files(place: Path, root: Path, settings: Settings) -> FilesToWrite:
    """All that is written, before anything is."""
    texts = {
        "dvc.yaml": pipeline_text(root, settings.elsewhere),
        "params.yaml": _params(settings),
        "src/networks/mine.py": template("mine.py"),
    }
    if "data/raw/README.md" not in settings.copies:
        texts["data/raw/README.md"] = template("raw-README.md")
    # A package, as one of that name that is installed would else come first.
    if not (place / "src/networks/__init__.py").exists():
        texts["src/networks/__init__.py"] = '"""Networks, a file each."""\n'
    lines = {".gitignore": template("gitignore").splitlines(), ".dvcignore": template("dvcignore").splitlines()}
    return FilesToWrite(texts, lines, settings.copies, pipeline_outputs(texts["dvc.yaml"]))


def _params(settings: Settings) -> str:
    version = {"surefoot": installation.installed_version()}
    text = (
        "# Every knob of the pipeline. Change one, then `dvc repro`: only what depends on it runs again.\n"
        "# All other keys have their defaults: `surefoot schema --markdown` lists every key.\n\n"
        + commented_yaml({**version, **settings.params})
    )
    if len(text.encode()) > LARGEST:
        ignored = len(settings.params["prepare"].get("ignore", []))
        raise UserError(
            f"{settings.params['prepare']['source']}: of its columns {ignored:,} teach nothing, too many to be named in"
            " params.yaml one by one: leave them out of the file, such as those that are the same in every row"
        )
    return text


def _told(place: Path, files: FilesToWrite, root: Path | None, dirty: bool) -> Iterator[str]:
    """What was done, and what comes next."""
    if place.resolve() != Path.cwd().resolve():
        yield f"the pipeline lies in {place}"
    yield f"written: {', '.join([*files.texts, *files.copies])}; lines in {' and '.join(files.lines)}"
    if not root:
        yield f"DVC was initialized in {place}"
    elif root != place:
        yield f"DVC's root is {root}"
    if not environment_below(root or place):
        yield (
            f"Surefoot is installed in {sys.prefix}, which dvc.yaml doesn't name: have that environment activated where"
            " you call `dvc repro`, which takes the `python` that it finds"
        )
    if dirty:
        yield "there were changes that aren't committed; they are as they were"


def _environment_not_ignored(top: Path) -> list[str]:
    """What to tell where Git would list this environment's files as changes."""
    ours = Path(sys.prefix).resolve()
    below = ours.is_relative_to(top.resolve())
    # A file in it, as an environment may have a .gitignore of its own, which has all of them.
    if not below or ask_git("check-ignore", "--quiet", str(ours / "pyvenv.cfg"), cwd=top) is not None:
        return []
    line = f"/{ours.relative_to(top.resolve()).as_posix()}/"
    return [
        f"Git doesn't ignore {paths.from_here(ours)}, where Surefoot is installed: add {line} to"
        f" {paths.from_here(top / '.gitignore')}, as else each run records its files as uncommitted changes"
    ]


def _next(place: Path) -> str:
    with chdir(place):  # as the commands are typed there
        commands = f"{script('dvc')} repro, and {script('surefoot')} ui"
    where = "" if place.resolve() == Path.cwd().resolve() else f", in {paths.from_here(place)}:"
    return f"next: commit what was written, so that runs can be made again; then{where} {commands}"
