"""A name that stands for code is refused by `surefoot check`, with its line, and no code runs for that."""

import os
import subprocess
import sys

import pytest
import torch
from torch.optim import lr_scheduler

from surefoot.base import writing
from surefoot.base.errors import UserError
from surefoot.commands import check
from surefoot.params.params_yaml import load_params
from surefoot.training.numerics import pin
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
        (
            "train.schedule.name",
            "StpLR",
            "train.schedule.name: torch.optim.lr_scheduler has no schedule 'StpLR'; did you mean StepLR?",
        ),
        (
            "train.schedule",
            "[{name: constant, length: 3}, {name: x}]",
            "train.schedule.1.name: torch.optim.lr_scheduler has no schedule 'x'",
        ),
        ("train.loss.name", "MSLoss", "train.loss.name: torch.nn has no loss 'MSLoss'; did you mean MSELoss?"),
        ("train.loss.name", "Linear", "train.loss.name: torch.nn has no loss 'Linear'"),
        (
            "train.model.factory",
            "mine:biuld",
            "train.model.factory: mine:biuld: module mine has no 'biuld'; did you mean build?",
        ),
        ("train.model.factory", "nowhere:build", "train.model.factory: nowhere:build: there is no module nowhere"),
        (
            "train.model.factory",
            "surefoot.networks.mlp:mlp",
            "train.model.factory: surefoot.networks.mlp:mlp: there is no module surefoot.networks.mlp; did you mean"
            " networks.mlp:mlp?",
        ),
        ("train.model.factory", "broken:build", "train.model.factory: broken:build: "),
        ("prepare.source", "mine:rows", "prepare.source: mine:rows: module mine has no 'rows'"),
    ],
)
def test_a_name_that_there_is_not(params, key, text, said):
    set_param(params, key, text)
    with pytest.raises(UserError) as refused:
        check.check_names(load_params(params))
    where, line, rest = str(refused.value).split(":", 2)
    assert (where, rest.strip()[: len(said)]) == ("params.yaml", said)
    assert any(part in params.read_text().splitlines()[int(line) - 1] for part in key.split(".")[1:])


@pytest.mark.parametrize(
    ("source", "key", "text", "formats"),
    [
        ("raw.csv", "arrays", "{inputs: x_train}", "with csv files, only with npz"),
        ("raw.csv", "images", "{resize: [8, 8]}", "with csv files, only with images"),
        ("raw.csv.gz", "labels", "y.npy", "with csv files, only with npz or npy or idx"),
        ("raw.csv", "test_labels", "y.npy", "with csv files, only with npz or npy or idx"),
        ("raw.parquet", "csv", "{names: [a, b]}", "with parquet files, only with csv"),
        ("raw.npz", "csv", "{header: [a, b]}", "with npz files, only with csv"),
        ("x.npy", "arrays", "{test_inputs: x_test, test_targets: y_test}", "with npy files, only with npz"),
        ("sklearn:wine", "csv", "{header: false, names: [a, b]}", "with data of scikit-learn's, only with csv"),
        ("sources.mine:rows", "arrays", "{inputs: x_train}", "with a function, only with npz"),
    ],
)
def test_a_name_that_has_no_use(params, source, key, text, formats):
    (params.parent / "sources").mkdir()
    (params.parent / "sources/mine.py").write_text("def rows():\n    yield\n")
    train = "train:\n  model: {factory: mine:build}\n  epochs: 1\n  lr: 0.1\n"
    params.write_text(f"prepare:\n  source: {source}\n  target: kind\n  {key}: {text}\n{train}")
    with pytest.raises(UserError, match=rf"^params\.yaml:\d+: prepare\.{key}.*: .* has no use {formats}; leave it out"):
        check.check_names(load_params(params))


def test_names_that_have_a_use(params):
    for source, section in {
        "raw.csv": "csv: {header: [a, b]}",
        "raw.tsv": "csv: {header: false, names: [a, b]}",
        "x.npz": "arrays: {inputs: x_train, targets: y_train, test_inputs: x_test, test_targets: y_test}",
        "directory": "images: {resize: [8, 8], mode: L}",
        "x-idx3-ubyte.gz": "labels: y-idx1-ubyte.gz",
    }.items():
        (params.parent / "directory").mkdir(exist_ok=True)
        params.write_text(
            f"prepare:\n  source: {source}\n  target: kind\n  {section}\ntrain:\n  model: {{factory: mine:build}}\n "
            " epochs: 1\n  lr: 0.1\n"
        )
        check.check_names(load_params(params))


@pytest.mark.parametrize(
    ("numerics", "threads", "said"),
    [("portable", 65, "OpenBLAS, which takes 64 threads"), ("native", 1024, "on the 2 cores")],
)
def test_threads_that_do_not_work(params, monkeypatch, numerics, threads, said):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    set_param(params, "numerics", numerics)
    set_param(params, "threads", str(threads))
    with pytest.raises(UserError, match=rf"^params\.yaml:\d+: threads: .*{said}"):
        check.check_names(load_params(params))
    with pytest.raises(UserError, match=rf"^params\.yaml: threads: .*{said}"):  # before anything is set
        pin(numerics, threads)
    monkeypatch.setattr("os.cpu_count", lambda: 1024)
    set_param(params, "numerics", "native")
    check.check_names(load_params(params))


def test_names_that_there_are(params):
    set_param(params, "train.model.factory", "mine:build")
    check.check_names(load_params(params))
    writing.write_bytes(params, (PROJECT / "params.yaml").read_bytes())
    check.check_names(load_params(params))


def test_the_names_are_torchs():
    losses = {name for name in dir(torch.nn) if name.endswith("Loss")}
    assert losses <= set(check._torchs("nn"))
    kinds = {
        name
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    }
    assert kinds <= set(check._torchs("optim"))
    schedules = {
        name
        for name, kind in vars(lr_scheduler).items()
        if isinstance(kind, type) and issubclass(kind, lr_scheduler.LRScheduler)
    }
    assert schedules - {"LRScheduler", "_LRScheduler"} <= set(check._torchs("optim.lr_scheduler")) | {
        "_enable_get_lr_call"
    }


def test_torch_is_not_imported_for_that(params):
    code = (
        "import sys; from pathlib import Path; from surefoot.commands import check; from surefoot.params.params_yaml"
        " import load_params; check.check_names(load_params(Path('params.yaml')))"
    )
    code += "; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(PROJECT / "src")},
        cwd=params.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


def test_a_check_imports_neither_torch_nor_the_users_packages():
    code = (
        "import sys; from surefoot.commands.check import main; main(); print(sorted({'torch', 'networks', 'sources'} &"
        " sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": "src"}, cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_raw_file_whose_name_is_no_text(params):
    (params.parent / "data/raw/parts").mkdir(parents=True)
    (params.parent / "data/raw/parts" / os.fsdecode(b"b\xff.csv")).write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"data/raw/parts/b.*csv: its name isn't UTF-8"):
        check.main()
