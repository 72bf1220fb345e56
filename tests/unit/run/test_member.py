"""A process among those that train, by itself."""

import os
import subprocess
import sys

from tests.helpers import PROJECT

MEMBERS = """
import os
import torch.distributed as dist
from surefoot.run.processes import member

member.SECONDS_TO_LOOK = 0
store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
os.environ |= {"MASTER_PORT": str(store.port), member.RANK: str(os.getppid())}
first = member.Member()
dist.init_process_group = lambda *_, **__: None
others = [member.Member() for _ in range(20)]
"""


def test_a_process_that_has_done_its_part_ends_without_an_abort():
    """What it says from a thread, in C++, is over before Python is taken down."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "src")}
    done = subprocess.run([sys.executable, "-c", MEMBERS], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
