"""Two processes that train one run: locks between them, the chain in common."""

from tests.unit.base.test_locks import process
from tests.unit.run.chains import STEPS, by_hand

TRAINS = """
import sys
from pathlib import Path
from surefoot.training import numerics
numerics.pin("portable", 1)
from surefoot.base.locks import Locks
from surefoot.run.trajectory_store import TrajectoryStore
from tests.unit.run.chains import chain, cut, make, order
store, first = Path(sys.argv[1]), True
locks = Locks(store / "lock")

def check():
    global first
    if first:
        print("at work", flush=True)
        sys.stdin.readline()
    first = False

lock = lambda key: locks.held(key, lambda pid: print("waits for", pid, flush=True))
with chain(cut(int(sys.argv[2]), 2), TrajectoryStore(store), make, order, lock=lock, check=check) as links:
    for reached in links.follow():
        pass
    print("trained", links.steps_trained, links._store.record(links.segments[-1].key).state, flush=True)
"""


def test_two_trainers_of_one_run_train_each_step_once(tmp_path):
    with process(TRAINS, tmp_path, 4) as one, process(TRAINS, tmp_path, 3) as other:
        # The one that has the first segment waits for us, the other one for it.
        lines = one.line(), other.line()
        first, second = (one, other) if lines[0] == "at work" else (other, one)
        assert set(lines) == {"at work", f"waits for {first.pid}"}
        first.go_on()
        second.go_on()
        found = []
        for process_ in (first, second):
            line = process_.line()
            while not line.startswith("trained"):
                assert line == "at work" or line.startswith("waits for"), line
                line = process_.line()
            found.append(line.split())
    assert sum(int(steps) for _, steps, _ in found) == 4 * STEPS
    states = by_hand(4)[0]
    assert {state for _, _, state in found} == {states[4 * STEPS], states[3 * STEPS]}
