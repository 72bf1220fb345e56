"""`params.yaml` as frozen, checked types: each key's type, default, meaning and check, in one place."""

from typing import Any, Literal

from pydantic import Field, TypeAdapter

from surefoot.params.batch_section import BatchParams
from surefoot.params.dotted_keys import flatten
from surefoot.params.prepare_section import PrepareParams
from surefoot.params.section_base import Section, inner_section
from surefoot.params.train_section import TrainParams

# Params that can't change a bit of a result: where, how often and as what something is kept, and how long may be
# trained at once.
NO_RESULT = (
    "train.save_every",
    "train.checkpoint_every",
    "train.keep_states",
    "train.max_minutes",
    "train.register",
    "train.onnx",
)


class Params(Section):
    """Every knob of the pipeline."""

    surefoot: str | None = Field(default=None, exclude=True)  # decides no bit: no record and no key has it
    """The version of Surefoot that this file is of: another one that is installed refuses it. `null`, as in a clone:
    any.
    """
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides the split, the order of rows, the first weights and all randomness in training."""
    numerics: Literal["portable", "avx2", "native"] = "portable"
    """Which machines give the same bits: `portable` Intel and AMD alike, `avx2` Intel alone, `native` this kind of
    machine.
    """
    threads: int = Field(default=1, gt=0, le=1024)
    """CPU threads in training. Another number gives other bits."""
    device: Literal["cpu", "cuda", "mps"] = "cpu"
    """What trains: the processor, an NVIDIA GPU, or Apple's.

    Another device gives other bits; only on the CPU are they promised.
    """
    deterministic: bool = True
    """Refuse torch's operations that have no deterministic kernel. `false` only warns of them; then runs may differ."""
    prepare: PrepareParams
    batch: BatchParams = Field(default_factory=BatchParams)
    train: TrainParams


def default_of(key: str) -> Any:
    """The default of a dotted key that has one, as YAML has it."""
    section: type[Section] = Params
    *parents, name = key.split(".")
    for parent in parents:
        inner = inner_section(section.model_fields[parent].annotation)
        assert inner
        section = inner
    return TypeAdapter(Any).dump_python(section.model_fields[name].get_default(call_default_factory=True), mode="json")


def default_values() -> dict[str, Any]:
    """The defaults by dotted key; what has none has any value."""
    least = {"prepare": {"source": ".", "target": "."}, "train": {"model": {"factory": "a:b"}, "epochs": 1, "lr": 1.0}}
    return flatten(Params.model_validate(least).model_dump(mode="json"))
