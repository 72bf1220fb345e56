"""Steps that consist of the same operations, and what is known of them so far."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from surefoot.training.recorded.optimizer_numbers import Numbers
from surefoot.training.recorded.program import Program
from surefoot.training.recorded.tape import Recording

# What steps read is looked at after so many, or so many seconds: then a value that isn't finite is found, the progress
# bar moves, and a signal is heard.
AT_ONCE = 256
SECONDS_AT_ONCE = 0.2
CHECKED = 2  # steps of a program that are also taken eagerly, and compared
TRIES = 3  # programs of a kind that turn out to be wrong, or stretches that fail, before it is given up


@dataclass
class StepKind:
    """Steps that consist of the same operations, and how they are taken."""

    sizes: tuple[int, ...]  # rows of each minibatch
    reason: str | None = None  # why all are taken eagerly
    taken: int = 0
    eager_first: int = 0  # so many, before one is recorded
    tries: int = 0
    watched: bool = False  # whether what the network keeps in Python was seen not to change
    recordings: list[tuple[Recording, Numbers]] = field(default_factory=list)
    program: Program | None = None
    checked: int = 0  # steps of the program
    values: Sequence[float] = ()  # that were scheduled for the first of these
    varied: set[int] = field(default_factory=set)  # those of them that were seen to change
    at_once: int = 1  # steps that the program takes in one go
    unchecked: int = 0  # steps that it took since one was checked
    suspect: bool = False  # whether a step gave other bits after some that weren't checked

    @property
    def trusted(self) -> bool:
        """Whether its program takes steps that aren't checked."""
        return self.reason is None and self.program is not None and self.checked >= CHECKED

    def forget(self) -> None:
        """Begin anew with recording."""
        self.recordings, self.program, self.checked, self.values, self.unchecked = [], None, 0, (), 0
        self.varied.clear()

    def failed(self, why: str) -> None:
        """Note that its program gave other bits, or failed; the third time it is given up."""
        self.tries += 1
        if self.tries >= TRIES:
            self.reason = why

    def took(self, steps: int, start: float) -> None:
        """Note that steps were taken by the program from `start` on (`time.perf_counter`) until now."""
        self.at_once = max(1, min(AT_ONCE, int(SECONDS_AT_ONCE * steps / (time.perf_counter() - start))))

    def new_values(self, row: Sequence[float]) -> set[int]:
        """Which scheduled values change for the first time since the program was made."""
        return {place for place, value in enumerate(row) if value != self.values[place]} - self.varied
