"""What a training is made of, before anything is built: its rows, its learning rate, the model that it starts from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from surefoot.data.batch_store import Store
from surefoot.params.sections import Params
from surefoot.run import new_rows, start_from
from surefoot.run.start_from import Start
from surefoot.run.start_note import StartNote
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.training import divergence
from surefoot.training.minibatches import Rows
from surefoot.training.preflight import read_start_weights


@dataclass(frozen=True)
class Inputs:
    """What a training is made of; `batches` has the rows that are trained on, `weights` are those of the start."""

    params: Params
    batches: Store
    start: Start | None
    weights: Mapping[str, Tensor] | None
    training: Rows
    validation: Rows

    @property
    def start_note(self) -> StartNote | None:
        """What is said of the model that it starts from, and whether that model's preparation was kept."""
        if self.start is None:
            return None
        keeps = self.start.preparation is not None and not self.params.prepare.refit
        return StartNote.model_validate(self.start.note.said() | {"keeps": keeps})

    @property
    def rows_per_step(self) -> int:
        """Rows in a step: those of one minibatch, or of several (`train.accumulate`)."""
        return self.batches.batch_size * self.params.train.accumulate

    @property
    def steps_per_epoch(self) -> int:
        """Steps in a whole epoch."""
        return -(-self.batches.rows_per_epoch // self.rows_per_step)

    @property
    def epochs(self) -> int:
        """Epochs of the run, if nothing ends it before."""
        train = self.params.train
        return min(train.epochs, -(-train.max_steps // self.steps_per_epoch)) if train.max_steps else train.epochs

    @property
    def lr(self) -> float:
        """The learning rate in effect."""
        return float(self.scaled(self.params.train.lr))

    def scaled(self, lr: Any) -> Any:
        """A learning rate as it is in effect: scaled, if that is asked for (`train.lr_reference_batch`).

        What isn't a number is left to the optimizer to refuse.
        """
        reference = self.params.train.lr_reference_batch
        return lr * self.rows_per_step / reference if reference and isinstance(lr, int | float) else lr

    def remedies(self) -> str:
        """What may help if the training diverges, beside a smaller `train.lr`, as the end of a sentence."""
        return divergence.remedies(
            self.batches.task,
            self.params.train.loss.name,
            inputs_scaled=self.batches.inputs_scaled,
            target_scaled=self.batches.target_scale is not None,
        )


def gather_inputs(params: Params, batches: Store, store: TrajectoryStore) -> Inputs:
    """What a training by these params is made of.

    Raises:
        UserError: the model that it is to start from isn't there, or is damaged; there is no new row.
    """
    start = start_from.load_start(params, store)
    batches = new_rows.select_rows(params.train.rows, batches, start.note if start else None)
    weights = read_start_weights(start.weights, str(start.note.name)) if start and start.weights is not None else None
    training, validation = (
        Rows.stored(split.inputs, split.targets, batches.index.scale, batches.target_scale)
        for split in (batches.train, batches.validation)
    )
    return Inputs(params, batches, start, weights, training, validation)
