"""What is to be trained: the chain that params.yaml and the data make."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from surefoot.base import paths
from surefoot.data.batch_store import Store
from surefoot.data.order import RowOrder, RowOrderAmong
from surefoot.params.sections import Params
from surefoot.run.chain import Chain
from surefoot.run.early_stopping import early_stopping
from surefoot.run.plan import checks
from surefoot.run.plan.builder import Builder
from surefoot.run.plan.identity import identity_of, origin_of
from surefoot.run.plan.inputs import Inputs, gather_inputs
from surefoot.run.processes.leader import Leader
from surefoot.run.segments import all_segments, cut_into_segments
from surefoot.run.trajectory_store import TrajectoryStore
from surefoot.training.loop import Trainer
from surefoot.training.machine_limits import check_precision
from surefoot.training.network import network_of, takes_schema, to_bytes
from surefoot.training.schedule import Schedule, epochs_of_schedule, higher_is_better


@dataclass(frozen=True)
class Plan:
    """What is to be trained."""

    identity: str
    origin: dict[str, Any]
    inputs: Inputs
    builder: Builder
    make_schedule: Callable[[], Schedule]
    """Gives the schedule from its first step."""
    validated: list[str]
    """The metrics that are measured on the validation rows."""
    _ready: list[Trainer]  # the one that was built already, until it is taken

    def trainer(self) -> Trainer:
        """A trainer in the first state: the one that was built already, after that a new one."""
        return self._ready.pop() if self._ready else self.builder.trainer()

    def first_network(self) -> bytes:
        """The network before the first step, as safetensors."""
        return network_of(to_bytes(self._first_state()))

    def _first_state(self) -> dict[str, Tensor]:
        trainer = self.trainer()
        self._ready.append(trainer)
        return trainer.state()

    def epoch_keys(self) -> list[str]:
        """The key at the end of each epoch, as far as they are known before anything is trained: none where the
        schedule follows a metric.
        """
        schedule = self.make_schedule()
        if schedule.metric:
            return []
        return [
            segment.key
            for segment in all_segments(self.origin, epochs_of_schedule(schedule), 0, self.inputs.steps_per_epoch)
        ]

    def order(self, epoch: int) -> RowOrder | RowOrderAmong:
        """The rows of an epoch, in the order in which they are trained on."""
        return self.inputs.batches.order(self.inputs.params.seed, epoch)

    def measures(self, epoch: int) -> set[str]:
        """The metrics of an epoch."""
        average = self.inputs.params.train.average
        averaged = average.name != "none" and epoch >= average.start
        found = [*self.validated, *(checks.averaged_names(self.validated) if averaged else ())]
        return {"train/loss", *found, "gradient_norm", "lr"}

    def state_check(self) -> Callable[[bytes], bool]:
        """A function that tells whether a state can be one of this run's, by the tensors of its network."""
        expected = _network_shapes(self._first_state())

        def fits(state: bytes) -> bool:
            try:
                return _network_shapes(safetensors.torch.load(state)) == expected
            except (SafetensorError, ValueError, KeyError):
                return False

        return fits

    def chain(self, store: TrajectoryStore, **hooks: Any) -> Chain:
        """The chain of the run; `hooks` go to `Chain`."""
        params, steps = self.inputs.params, self.inputs.steps_per_epoch
        early = params.train.early_stopping
        planned = cut_into_segments(self.origin, self.make_schedule().next_epoch, params.train.checkpoint_every, steps)
        ends = early_stopping(**early.model_dump(), rises=higher_is_better(early.metric))
        hooks |= {"ends": ends, "measures": self.measures}
        return Chain(planned, self.inputs.epochs, store, self.trainer, self.order, **hooks)


def _network_shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size]]:
    """The types and shapes of a state's tensors, but for the optimizer's, which it makes in the first step."""
    return {name: (tensor.dtype, tensor.shape) for name, tensor in state.items() if not name.startswith("optimizer.")}


def plan_run(params: Params, batches: Store, leader: Leader | None = None) -> Plan:
    """Plan the run of these params. Numerics must be pinned; the network is built twice, and tried on one batch.

    `leader`: of the other processes that train along.

    Raises:
        UserError: the network can't be built, or doesn't fit the data; the model that it is to start from isn't there,
        or doesn't fit it.
    """
    inputs = gather_inputs(params, batches, TrajectoryStore(paths.trajectory_store()))
    check_precision(params.train.precision, params.numerics, params.device)
    builder, factory = Builder.of(inputs, leader), params.train.model.factory
    trainer = builder.trainer()
    knows_schema = takes_schema(factory)
    checks.check_codes(factory, batches.index.features, knows_schema)
    first_state, other = to_bytes(trainer.state()), builder.trainer()
    checks.check_repeats_itself(factory, trainer.model, other.model, first_state == to_bytes(other.state()))
    make_schedule = builder.schedule_maker(other.optimizer)
    validated = checks.check_one_batch(inputs, other)
    checks.check_shards(inputs, other.model)
    checks.check_followed_metrics(params, validated, make_schedule().metric)
    origin = origin_of(inputs, first_state, make_schedule(), knows_schema)
    return Plan(identity_of(inputs, origin), origin, inputs, builder, make_schedule, validated, [trainer])
