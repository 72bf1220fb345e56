"""The network's outputs on the test rows, by several processes: each takes the next part that nobody has taken.

The stage takes parts, too, and computes what is missing at the end: so nothing is lost where another dies or hangs.

    python -m surefoot.run.processes.shared_evaluation DIRECTORY PID DIGEST

is one of the others; it puts the outputs of a part into the directory, and ends with the stage, whose id is given, with
the digest of its params.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from surefoot.base import digests, paths, terminal, writing
from surefoot.base.errors import run_process
from surefoot.data.batch_store import Store, open_store
from surefoot.params.sections import Params
from surefoot.run.from_params import chosen_network
from surefoot.run.pinned_params import load_and_pin
from surefoot.run.processes.wanted import wanted_processes
from surefoot.training.minibatches import Stored
from surefoot.training.network import outputs_of, to_bytes
from surefoot.training.sharded.shared_outputs import evaluation_parts

SECONDS = 10.0  # that it must take one process for others to be started, whose imports take some
TRIED = 2  # parts after which that is known: the first takes longer


def outputs_by_processes(params: Params, model: nn.Module, batches: Store) -> Tensor:
    """As `outputs_of` the test rows; by several processes where `SUREFOOT_PROCESSES` says so, and it takes long.

    Raises:
        UserError: `SUREFOOT_PROCESSES` makes no sense.
    """
    inputs = inputs_to_test(batches)
    parts = evaluation_parts(inputs)
    processes = min(wanted_processes(params.train.shards, params.threads), len(parts) - TRIED)
    if processes < 2 or params.device != "cpu":
        return outputs_of(model, inputs)
    found: dict[int, Tensor] = {}
    for number in range(TRIED):
        began = time.monotonic()
        found[number] = outputs_of(model, inputs[slice(*parts[number])])
    seconds = time.monotonic() - began
    if seconds * (len(parts) - TRIED) > SECONDS:
        terminal.print_lines(f"{processes} processes share the {len(inputs):,} test rows")
        found |= _shared_outputs(params, model, inputs, processes, 2 * seconds)
    for number, part in enumerate(parts):
        if number not in found:
            found[number] = outputs_of(model, inputs[slice(*part)])
    return torch.cat([found[number] for number in range(len(parts))])


def inputs_to_test(batches: Store) -> Stored:
    """The test rows as the network gets them."""
    return Stored(batches.test.inputs, batches.index.scale)


def computed_parts(model: nn.Module, inputs: Stored, shared: Path) -> Iterator[tuple[int, Tensor]]:
    """The parts that nobody has taken, but for the first few, each taken in turn: its number, and outputs."""
    for number, part in enumerate(evaluation_parts(inputs)):
        if number >= TRIED and _take(shared, number):
            yield number, outputs_of(model, inputs[slice(*part)])


def _take(shared: Path, number: int) -> bool:
    try:
        (shared / f"{number}.taken").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _shared_outputs(
    params: Params, model: nn.Module, inputs: Stored, processes: int, patience: float
) -> dict[int, Tensor]:
    """The outputs of parts, by number, but for those that another took and doesn't finish within so many seconds."""
    with (
        tempfile.TemporaryDirectory(prefix="surefoot-") as scratch,
        _others(params, Path(scratch), processes - 1) as others,
    ):
        own = dict(computed_parts(model, inputs, Path(scratch)))
        end = time.monotonic() + patience
        for process in others:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0, end - time.monotonic()))
        made = Path(scratch).glob("*.safetensors")
        return own | {int(path.stem): safetensors.torch.load(path.read_bytes())["outputs"] for path in made}


@contextmanager
def _others(params: Params, shared: Path, count: int) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """So many other processes, gone when the block ends; what goes wrong in them the stage finds, too."""
    program = [sys.executable, "-m", "surefoot.run.processes.shared_evaluation"]
    command = [*program, str(shared), str(os.getpid()), _digest(params)]
    started: list[subprocess.Popen[bytes]] = []
    quiet = subprocess.DEVNULL
    try:
        with suppress(OSError):  # no process can be started
            for _ in range(count):
                started.append(subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet))
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def _digest(params: Params) -> str:
    return digests.sha256(params.model_dump_json().encode())


def main() -> None:
    """Put the outputs of parts into the directory until all are taken."""
    shared, stage = Path(sys.argv[1]), int(sys.argv[2])
    params, batches = load_and_pin(), open_store(paths.BATCHES)
    if _digest(params) != sys.argv[3]:  # params.yaml was edited since the stage read it
        return
    for number, outputs in computed_parts(chosen_network(params, batches), inputs_to_test(batches), shared):
        if os.getppid() != stage:
            return
        writing.write_bytes(shared / f"{number}.safetensors", to_bytes({"outputs": outputs}))


if __name__ == "__main__":
    run_process(main)
