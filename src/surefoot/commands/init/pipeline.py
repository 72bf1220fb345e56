"""dvc.yaml of a user's repository, from its template."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from surefoot.base.errors import UserError
from surefoot.base.yaml12 import from_yaml
from surefoot.params.commented_yaml import yaml_value

TEMPLATES = Path(__file__).parents[2] / "templates"


def template(name: str) -> str:
    """The text of a file in `templates`."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def pipeline_text(root: Path, elsewhere: Sequence[str] = ()) -> str:
    """dvc.yaml, with the environment that Surefoot runs in, where that lies in the repository, and with data that lie
    elsewhere.

    Raises:
        UserError: DVC would read a name otherwise.
    """
    if other := next((name for name in elsewhere if "${" in name), None):
        raise UserError(
            f"{other}: DVC puts a value in the place of ${{...}} in dvc.yaml; rename it, or move it to data/raw"
        )
    text = template("pipeline.yaml")
    if (environment := environment_below(root)) != ".venv":
        before = f'PATH="$DVC_ROOT/{environment}/bin:$PATH" ' if environment else ""
        text = text.replace('PATH="$DVC_ROOT/.venv/bin:$PATH" ', before)
    if elsewhere:
        named = ", ".join(["data/raw", *map(yaml_value, elsewhere)])
        text = text.replace("deps: [data/raw", f"deps: [{named}")
    return text


def pipeline_outputs(text: str) -> list[str]:
    """The files and directories that the stages of a dvc.yaml make."""
    stages = from_yaml(text)["stages"].values()
    found = [output for stage in stages for output in (*stage.get("outs", []), *stage.get("metrics", []))]
    return [next(iter(output)) if isinstance(output, dict) else output for output in found]


def environment_below(root: Path) -> str | None:
    """The virtual environment that runs this, below DVC's root; None: it lies elsewhere, or its name means something to
    a shell.
    """
    ours = Path(sys.prefix)
    if (root / ".venv").resolve() == ours.resolve():  # also where that is a link
        return ".venv"
    if not ours.resolve().is_relative_to(root.resolve()):
        return None
    name = ours.resolve().relative_to(root.resolve()).as_posix()
    return name if re.fullmatch(r"[\w./-]+", name) else None
