import os
import subprocess
import sys
from functools import cache

import pytest
import torch

from surefoot.training import numerics


def python(code, **environment):
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MKL_", "OMP_", "ATEN_", "ONEDNN_", "DNNL_", "OPENBLAS_"))
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env={**clean, "PYTHONPATH": "src", **environment}, capture_output=True, text=True
    )
    return done.stdout.strip() or done.stderr.strip()


FINGERPRINT = "from surefoot.training import numerics; numerics.pin({!r}, {}); print(numerics.fingerprint())"


@cache
def fingerprint(profile, threads):
    """What a process of its own says, in an environment where nothing is set."""
    return python(FINGERPRINT.format(profile, threads))


def test_another_process_has_the_same_fingerprint():
    assert fingerprint("portable", 1) == numerics.fingerprint()


def test_the_fingerprint_depends_on_the_number_of_threads():
    assert fingerprint("portable", 2) not in ("", numerics.fingerprint())


def test_the_fingerprint_has_no_memory():
    first = numerics.fingerprint()
    torch.manual_seed(5)
    torch.rand(10)
    assert numerics.fingerprint() == first


def test_pinning_after_torch_was_imported_is_refused():
    assert "RuntimeError: torch was imported before numerics" in python(
        "import torch; from surefoot.training.numerics import pin; pin('portable', 1)"
    )


def test_pinning_twice_alike_is_fine_and_unlike_is_not():
    numerics.pin("portable", 1)
    for profile, threads in (("avx2", 1), ("native", 1), ("portable", 2)):
        with pytest.raises(RuntimeError, match="torch was imported before numerics"):
            numerics.pin(profile, threads)
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_native_takes_out_what_the_environment_had_set():
    code = (
        "import os; from surefoot.training.numerics import pin; pin('native', 1); print(os.environ.get('MKL_CBWR'),"
        " os.environ.get('ATEN_CPU_CAPABILITY'))"
    )
    assert python(code, MKL_CBWR="COMPATIBLE", ATEN_CPU_CAPABILITY="default") == "None None"


@pytest.mark.parametrize(
    ("profile", "threads", "environment"),
    [
        ("native", 1, {"DNNL_MAX_CPU_ISA": "SSE41"}),  # an older name of ONEDNN_MAX_CPU_ISA
        ("portable", 2, {"OMP_THREAD_LIMIT": "1"}),
        ("portable", 2, {"OMP_MAX_ACTIVE_LEVELS": "0"}),
        ("portable", 1, {"OPENBLAS_CORETYPE": "Sandybridge"}),
    ],
)
def test_the_environment_changes_no_bits(profile, threads, environment):
    assert len(fingerprint(profile, threads)) == 64
    assert python(FINGERPRINT.format(profile, threads), **environment) == fingerprint(profile, threads)


def test_it_does_not_matter_when_numpy_was_imported():
    """NumPy's OpenBLAS chooses its kernels then."""
    assert (
        python("import numpy; " + FINGERPRINT.format("portable", 1), OPENBLAS_CORETYPE="Sandybridge")
        == numerics.fingerprint()
    )


TAMPERED = """
import torch
from unittest.mock import patch
from surefoot.training import numerics, openblas_linear
for where, name, value in (
    (torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT"),
    (openblas_linear, "KERNELS", b"Zen"),
    (openblas_linear, "_openblas", lambda: None),
    (torch.cpu, "_is_avx2_supported", lambda: False),
):
    with patch.object(where, name, value):
        try:
            numerics.pin("portable", 1)
            print("nothing")
        except Exception as error:
            print(type(error).__name__, str(error).splitlines()[0])
numerics.pin("portable", 1)
print("pinned")
"""


def test_a_profile_that_did_not_take_effect_is_an_error():
    settled = {
        "MKL_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_DYNAMIC": "FALSE",
        "MKL_DYNAMIC": "FALSE",
        **numerics.PROFILES["portable"],
    }
    capability, kernels, openblas, avx2, last = python(TAMPERED, **settled).splitlines()
    assert "torch computes with DEFAULT" in capability
    assert "computes with b'" in kernels
    assert "needs the NumPy of PyPI" in openblas
    assert avx2.startswith("UserError numerics: portable needs a processor with AVX2")
    assert last == "pinned"


@pytest.mark.parametrize(
    ("change", "back"),
    [
        (lambda: torch.set_float32_matmul_precision("medium"), lambda: torch.set_float32_matmul_precision("highest")),
        (lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32)),
        (lambda: torch.set_flush_denormal(True), lambda: torch.set_flush_denormal(False)),
        (lambda: torch._C._set_mkldnn_enabled(False), lambda: torch._C._set_mkldnn_enabled(True)),
        (lambda: torch.backends.cuda.enable_flash_sdp(False), lambda: torch.backends.cuda.enable_flash_sdp(True)),
        (lambda: torch.set_deterministic_debug_mode("default"), lambda: torch.set_deterministic_debug_mode("error")),
    ],
)
def test_what_a_network_may_change_is_seen(change, back):
    before = numerics.settings()
    change()
    try:
        changed = numerics.settings()
    finally:
        back()
    assert len([name for name in before if changed[name] != before[name]]) == 1
    assert numerics.settings() == before


def test_pinning_sets_threads_and_determinism():
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory


def test_randomness_is_a_function_of_seed_and_step():
    def draw(seed, step):
        numerics.seed_step(seed, step)
        return tuple(torch.rand(4).tolist())

    streams = {(seed, step): draw(seed, step) for seed in (0, 1, 2**62) for step in range(50)}
    assert len(set(streams.values())) == len(streams)
    torch.rand(100)
    assert all(draw(*which) == drawn for which, drawn in streams.items())
