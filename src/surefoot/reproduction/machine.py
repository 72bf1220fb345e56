"""What a run was made with beside packages: Python, the system, the processor."""

import platform
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field

from surefoot.base.documents import Document


class Machine(Document):
    """`environment/machine.json`, as far as it is looked into."""

    python: Annotated[str, Field(pattern=r"^\d{1,3}\.\d{1,3}(\.\d{1,3}[a-z0-9+]{0,8})?$")] | None = None


def describe_machine() -> dict[str, str]:
    """What packages don't say of the environment: Python, the system, the processor.

    No names of the machine or its user.
    """
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()),
        "processor": _processor(),
    }


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
