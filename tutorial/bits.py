"""The same bits: run again, killed and resumed; and what the smallest difference becomes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from surefoot.base import digests, paths
from surefoot.params.sections import Params
from tutorial import draw, lab

if TYPE_CHECKING:
    from torch import Tensor

KILLED_AFTER = 10


def main() -> None:
    """Compare the weights of trainings epoch by epoch; kill a third one with `kill -9`, and let it go on."""
    params = lab.params()
    lab.pinned(params)
    runs = {
        "run again": params,
        "run with lr 0.0100001": lab.params(train__lr=params.train.lr * 1.00001),
        "run with another order of rows": lab.params(batch__shuffle="blocks"),
    }
    first = _weights(params)
    figure, (axes,) = draw.panels("Largest difference of a weight from the first run")
    rows: list[tuple[str, ...]] = [("", "after epoch 1", "after epoch 10", "after epoch 30")]
    for number, (name, changed) in enumerate(runs.items()):
        largest = [float((a - b).abs().max()) for a, b in zip(first, _weights(changed), strict=True)]
        rows.append((name, *(f"{largest[epoch - 1]:.0e}" if largest[epoch - 1] else "0" for epoch in (1, 10, 30))))
        axes.plot(range(1, len(largest) + 1), largest, label=name, **draw.style(number))
    draw.table(*rows)
    axes.set_yscale("symlog", linthresh=1e-8)
    axes.set(xlabel="epoch", ylabel="largest difference (below 1e-8: linear)", ylim=(-2e-9, 10))
    axes.legend()
    draw.save(figure, "bits")
    _kill(lab.params())


def _weights(params: Params) -> "list[Tensor]":
    """All weights after each epoch, as vectors."""
    import torch

    return [
        torch.cat([weights.detach().flatten().clone() for weights in trainer.model.parameters()])
        for _, trainer in lab.epochs(params)
    ]


def _kill(params: Params) -> None:
    """Run the stage train in a directory of its own, kill it in the middle, run it again."""
    with tempfile.TemporaryDirectory(prefix="surefoot-tutorial-") as name:
        there = Path(name)
        (there / "data").mkdir()
        for path in (Path("src"), paths.RAW):
            (there / path).symlink_to(path.resolve())
        (there / paths.BATCHES).symlink_to(lab.batched(params))
        (there / paths.PARAMS).write_text(json.dumps(params.model_dump(mode="json")))
        store = {
            "DVC_ROOT": name,
            "SUREFOOT_STORE": str(there / "store"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{there / 'mlflow.db'}",
        }
        command = [sys.executable, "-m", "surefoot.stages.train"]
        environment = {**os.environ, "PYTHONPATH": str(Path("src").resolve()), **store}
        with subprocess.Popen(
            command, cwd=there, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as training:
            assert training.stdout
            for line in training.stdout:
                if line.startswith(f"epoch {KILLED_AFTER}/"):
                    break
            training.send_signal(signal.SIGKILL)
        print(
            f"kill -9 after epoch {KILLED_AFTER}; exit code {training.returncode}; is there a model?"
            f" {'yes' if (there / paths.MODEL).exists() else 'no'}"
        )
        done = subprocess.run(command, cwd=there, env=environment, capture_output=True, text=True, check=True)
        with contextlib.suppress(StopIteration):
            print(f"run again: {next(line for line in done.stdout.splitlines() if 'restored' in line)}")
        print(f"{digests.sha256_file(there / paths.MODEL)}  killed and run again")
        if paths.MODEL.exists():
            print(f"{digests.sha256_file(paths.MODEL)}  {paths.MODEL}")
