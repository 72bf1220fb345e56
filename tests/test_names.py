"""A name that stands for code is refused by `surefoot check`, with its line, and no code runs for that."""

import subprocess
import sys

import pytest
import torch
from torch.optim import lr_scheduler

from surefoot import files, names
from surefoot.errors import UserError
from surefoot.params import load
from tests.helpers import PROJECT, set_param


@pytest.fixture
def params(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    (tmp_path / "mine.py").write_text("import torch\n\n\ndef build(shape, outputs):\n    raise SystemExit\n")
    (tmp_path / "broken.py").write_text("def build(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "params.yaml"


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("train.optimizer.name", "Adm", "train.optimizer.name: torch.optim has no optimizer 'Adm'; did you mean Adam?"),
        ("train.schedule.name", "StpLR", "train.schedule.name: torch.optim.lr_scheduler has no schedule 'StpLR'; did you mean StepLR?"),
        ("train.schedule", "[{name: constant, length: 3}, {name: x}]", "train.schedule.1.name: torch.optim.lr_scheduler has no schedule 'x'"),
        ("train.loss.name", "MSLoss", "train.loss.name: torch.nn has no loss 'MSLoss'; did you mean MSELoss?"),
        ("train.loss.name", "Linear", "train.loss.name: torch.nn has no loss 'Linear'"),
        ("train.model.factory", "mine:biuld", "train.model.factory: mine:biuld: module mine has no 'biuld'; did you mean build?"),
        ("train.model.factory", "nowhere:build", "train.model.factory: nowhere:build: there is no module nowhere"),
        ("train.model.factory", "broken:build", "train.model.factory: broken:build: "),
        ("prepare.source", "mine:rows", "prepare.source: mine:rows: module mine has no 'rows'"),
    ],
)
def test_a_name_that_there_is_not(params, key, text, said):
    set_param(params, key, text)
    with pytest.raises(UserError) as refused:
        names.check(load(params))
    where, line, rest = str(refused.value).split(":", 2)
    assert (where, rest.strip()[: len(said)]) == ("params.yaml", said)
    assert any(part in params.read_text().splitlines()[int(line) - 1] for part in key.split(".")[1:])


def test_names_that_there_are(params):
    set_param(params, "train.model.factory", "mine:build")
    names.check(load(params))
    files.write_bytes(params, (PROJECT / "params.yaml").read_bytes())
    names.check(load(params))


def test_the_names_are_torchs():
    losses = {name for name in dir(torch.nn) if name.endswith("Loss")}
    assert losses <= set(names._torchs("nn"))
    kinds = {name for name, kind in vars(torch.optim).items() if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)}
    assert kinds <= set(names._torchs("optim"))
    schedules = {name for name, kind in vars(lr_scheduler).items() if isinstance(kind, type) and issubclass(kind, lr_scheduler.LRScheduler)}
    assert schedules - {"LRScheduler", "_LRScheduler"} <= set(names._torchs("optim.lr_scheduler")) | {"_enable_get_lr_call"}


def test_torch_is_not_imported_for_that(params):
    code = "import sys; from pathlib import Path; from surefoot import names, params; names.check(params.load(Path('params.yaml')))"
    code += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(PROJECT / "src")}, cwd=params.parent, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_check_imports_neither_torch_nor_the_users_packages():
    code = "import sys; from surefoot.cli import check; check(None); print(sorted({'torch', 'networks', 'sources'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": "src"}, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
