"""Where things lie."""

import os
import re
from pathlib import Path

from surefoot.base.errors import UserError
from surefoot.base.wording import without_password

PARAMS = Path("params.yaml")
RAW = Path("data/raw")
START_FROM = Path("data/start_from")
PREPARED = Path("data/prepared")
BATCHES = Path("data/batches")
MODEL = Path("models/model.safetensors")
RUN = Path("models/run.json")
HISTORY = Path("reports/history.csv")
METRICS = Path("reports/metrics.json")
INTERVALS = Path("reports/intervals.json")
PREDICTIONS = Path("reports/predictions.csv")
CLASSES = Path("reports/classes.csv")
PLOTS = Path("reports/plots")
MEASURED = (METRICS, INTERVALS, PREDICTIONS, CLASSES, PLOTS)  # what evaluate says of a model and its data


def from_here(path: Path) -> Path:
    """A path as short as it can be told in the current directory."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def trajectory_store() -> Path:
    """The trajectory store: SUREFOOT_STORE, or `.surefoot/` in the project's folder, also beside a shared one.

    Raises:
        UserError: SUREFOOT_STORE is neither a directory nor a URL.
    """
    given = os.environ.get("SUREFOOT_STORE")
    if not given or shared_store():
        return repository_root() / ".surefoot"
    if Path(given).is_file():
        raise UserError(f"SUREFOOT_STORE: {given} is a file, not a directory")
    return Path(given)


def shared_store() -> str | None:
    """The URL of the store that machines share, if SUREFOOT_STORE is one.

    Raises:
        UserError: it is neither a directory nor a URL.
    """
    given = os.environ.get("SUREFOOT_STORE") or ""
    if re.match(r"[A-Za-z][A-Za-z\d+.-]*://", given):
        return given
    if "://" in given or re.match(r"[A-Za-z][A-Za-z\d+.-]+:", given):
        raise UserError(
            f"SUREFOOT_STORE: {without_password(given)} is neither a URL, as s3://BUCKET/PREFIX, nor a directory",
            "a directory of such a name is written ./NAME",
        )
    return None


def nearest_dvc(place: Path) -> Path:
    """The folder that DVC takes for its root at a place: the nearest above with `.dvc`, or the place itself."""
    return next((folder for folder in (place, *place.parents) if (folder / ".dvc").is_dir()), place)


def dvc_root() -> Path:
    """DVC's root here, absolute; in DVC's temporary copies that of the one they came from."""
    given = os.environ.get("DVC_ROOT")
    return Path(given).resolve() if given else nearest_dvc(Path.cwd())


def repository_root() -> Path:
    """The project's folder, which has params.yaml, absolute: DVC's root, or a subfolder, as in a monorepo. In DVC's
    temporary copies that of the one they came from.
    """
    here = Path.cwd()
    return dvc_root() / here.relative_to(nearest_dvc(here))
