"""Averages of the weights beside those that are trained: exponential (EMA) or stochastic (SWA), by
torch's swa_utils.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from surefoot.base.errors import UserError
from surefoot.base.user_code import describe_error
from surefoot.training.numerics import seed_step


class Average:
    """An average of a network's weights; its buffers are the network's, but those of BatchNorm, which are measured on
    the training rows.

    Args:
        model: the network.
        name: `ema`: updated after each step; `swa`: after each epoch.
        decay: of the EMA.
        start: the first epoch that counts.

    Raises:
        UserError: the network can't be copied.
    """

    def __init__(self, model: nn.Module, name: str, decay: float, start: int) -> None:
        self.each_step = name == "ema"
        self.start = start
        try:
            self._averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay) if self.each_step else None)
        except Exception as error:  # it keeps what was computed, as old weight_norm does
            raise UserError(
                f"train.average: the network can't be copied, which an average needs: {describe_error(error)}"
            ) from None

    @property
    def model(self) -> nn.Module:
        """The network with the averaged weights."""
        module: nn.Module = self._averaged.module
        return module

    def update(self, model: nn.Module) -> None:
        """Take in the weights as they are now."""
        self._averaged.update_parameters(model)

    def measure_batch_norm(self, minibatches: Iterable[tuple[Tensor, Tensor]], seed: int, step: int) -> None:
        """Measure the mean and variance that BatchNorm uses, by a pass over minibatches; randomness on the way is a
        function of (seed, step).

        Raises:
            UserError: the network raises something.
        """
        seed_step(seed, step)
        try:
            with _modes_kept(self.model):
                update_bn((inputs for inputs, _ in minibatches), self.model)
        except (Exception, SystemExit) as error:
            raise UserError(
                "train.average: the network fails when BatchNorm's mean and variance are measured on the training"
                f" rows: {describe_error(error)}"
            ) from None

    def state(self) -> dict[str, Tensor]:
        """`average.*` and how many were averaged."""
        saved = {f"average.{name}": tensor for name, tensor in self.model.state_dict().items()}
        return saved | {"averaged.count": self._averaged.n_averaged}

    def load(self, weights: dict[str, Tensor], count: Tensor) -> None:
        """Go to a state."""
        self.model.load_state_dict(weights)
        self._averaged.n_averaged.copy_(count)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a network has statistics to be measured anew."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


@contextmanager
def _modes_kept(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    yield
    for module, training in modes:
        module.training = training
