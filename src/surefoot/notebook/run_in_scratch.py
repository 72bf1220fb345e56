"""The process that `surefoot.run` starts (`python -m surefoot.notebook`): `dvc repro` in a checkout of its own, which
is gone afterwards.

Standard input says what is wanted, in a line of JSON: `values` by dotted key, and `out`, the directory for what came of
it. When it closes, whoever asked is gone, and this process ends at the last state.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Thread
from typing import Any

from surefoot.base import paths, writing
from surefoot.base.errors import UserError
from surefoot.commands.run import end_as, run_dvc
from surefoot.data.batch_index import read_index
from surefoot.params.dotted_keys import flatten
from surefoot.params.given_values import put_values
from surefoot.params.params_yaml import load_params
from surefoot.params.sections import Params
from surefoot.reproduction import own_checkout, provenance, raw_data
from surefoot.reproduction.scratch import Scratch
from surefoot.run.run_file import RunFile
from surefoot.tracking import find_runs, mlflow_store, tag_names

KEPT = (paths.MODEL, paths.HISTORY, paths.METRICS, paths.INTERVALS, paths.PREDICTIONS)


def main() -> None:
    """Run, and leave in `out` what a `Result` reads."""
    asked = json.loads(sys.stdin.buffer.readline())
    Thread(target=_end_with_asker, daemon=True).start()
    text, params = _with_values(asked["values"])
    source = provenance.code_state(raw_data.raw_places(flatten(params.model_dump(mode="json"))))
    if source.commit is None:
        raise UserError(f"surefoot.run needs the project in Git, with a commit: {source.trouble}")
    within = paths.trajectory_store().resolve() / "run"
    within.mkdir(parents=True, exist_ok=True)
    with Scratch("run", within) as scratch:
        own_checkout.check_out_now(scratch.path / "repository", source)
        place = own_checkout.project_in(scratch.path / "repository")
        writing.write_bytes(place / paths.PARAMS, text.encode())
        environment = own_checkout.environment_there(DVC_SITE_CACHE_DIR=str(scratch.path / "dvc"))
        check = [sys.executable, "-m", "surefoot", "check"]
        end_as(subprocess.run(check, cwd=place, env=environment, check=False).returncode)
        end_as(run_dvc(place, environment))
        _leave(place, params, Path(asked["out"]))


def _end_with_asker() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _with_values(values: dict[str, Any]) -> tuple[str, Params]:
    """The text of params.yaml with these values, and what it says.

    Raises:
        UserError: it isn't right.
    """
    load_params(paths.PARAMS)
    text = put_values(paths.PARAMS.read_text(encoding="utf-8"), values) if values else paths.PARAMS.read_text("utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / paths.PARAMS
        path.write_text(text, encoding="utf-8")
        try:
            return text, load_params(path)
        except UserError as error:  # these lines are in no file that anybody sees
            raise UserError(*(str(line).partition(": ")[2] for line in error.args)) from None


def _leave(place: Path, params: Params, out: Path) -> None:
    """Copy what came of a run to a directory: files, plots, and the code of the networks, which builds the model."""
    for path in KEPT:
        shutil.copy(place / path, out)
    shutil.copytree(place / paths.PLOTS, out / "plots")
    own = Path(__file__).parents[1].name
    if (place / "src").is_dir():
        shutil.copytree(place / "src", out / "code", ignore=shutil.ignore_patterns(own, "__pycache__", "*.egg-info"))
    run = RunFile.model_validate_json((place / paths.RUN).read_bytes())
    model = params.train.model
    about = {
        "params": flatten(params.model_dump(mode="json")),
        "network": {
            "factory": model.factory,
            "arguments": model.arguments,
            **read_index(place / paths.BATCHES).network_description(),
        },
        "epochs": len(run.epoch_keys),
        "chosen_epoch": run.chosen_epoch,
        **_in_mlflow(run.identity),
    }
    writing.write_json(out / "run.json", about)


def _in_mlflow(identity: str) -> dict[str, Any]:
    """The run's id, name and page there; none of them where it is out of reach."""
    try:
        with find_runs.reading_mlflow() as client:
            found = find_runs.search_runs(client, f"tags.`{tag_names.IDENTITY}` = '{identity}'", limit=1)
    except UserError:
        found = []
    if not found:
        return {"run_id": None, "name": None, "page": None}
    info = found[0].info
    return {"run_id": info.run_id, "name": info.run_name, "page": mlflow_store.run_page(info.run_id)}
