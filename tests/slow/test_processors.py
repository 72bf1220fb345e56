"""Do other processors compute the same bits? Emulated by qemu-user, which also changes what CPUID says and so which
kernels are picked.
"""

import json
import os
import shutil
import subprocess
import sys
from functools import cache

import pytest

from tests.helpers import PROJECT

EMULATED = ("Haswell", "Skylake-Client", "EPYC")
# qemu 7.2 computes oneDNN's LSTM wrongly: other numbers than a real processor by the same machine code, and not just in
# the last bit.
MISCOMPUTED = {"LSTM"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("qemu-x86_64") is None, reason="qemu-x86_64 is not installed; on Debian: apt-get install qemu-user"
    ),
]


@cache
def digests(profile, processor=None):
    emulator = ["qemu-x86_64", "-cpu", processor] if processor else []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(PROJECT / "src"), str(PROJECT)])}
    done = subprocess.run(
        [*emulator, sys.executable, "-m", "tests.slow.layers", profile],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("processor", EMULATED)
def test_portable_computes_the_same_bits_as_natively(processor):
    here, there = digests("portable"), digests("portable", processor)
    assert {"mlp", "cnn", "Adam", "fingerprint"} <= set(here)
    assert {name for name in here if here[name] != there[name]} <= MISCOMPUTED


def test_emulated_processors_agree_with_each_other():
    assert digests("portable", "Haswell") == digests("portable", "Skylake-Client") == digests("portable", "EPYC")


def test_avx2_computes_the_same_bits_on_intel():
    assert digests("avx2", "Haswell") == digests("avx2", "Skylake-Client")


def test_the_emulator_tells_processors_apart():
    """Otherwise all of the above would hold of itself: by kernels of its own choice AMD computes
    otherwise than Intel.
    """
    assert digests("avx2", "Haswell") != digests("avx2", "EPYC")


def test_a_processor_without_avx2_is_refused_in_one_line():
    code = "from surefoot.training import numerics; numerics.pin('portable', 1)"
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"} | {
        "PYTHONPATH": str(PROJECT / "src")
    }
    done = subprocess.run(
        ["qemu-x86_64", "-cpu", "IvyBridge", sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert "UserError: numerics: portable needs a processor with AVX2" in done.stderr
