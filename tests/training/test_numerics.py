import os
import subprocess
import sys

import pytest
import torch

from surefoot.training import numerics


def python(code, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MKL_", "OMP_", "ATEN_", "ONEDNN_"))}
    done = subprocess.run([sys.executable, "-c", code], env={**clean, "PYTHONPATH": "src", **environment}, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip()


FINGERPRINT = "from surefoot.training import numerics; numerics.pin({!r}, {}); print(numerics.fingerprint())"


def test_another_process_has_the_same_fingerprint():
    assert python(FINGERPRINT.format("portable", 1)) == numerics.fingerprint()


def test_the_fingerprint_depends_on_the_number_of_threads():
    assert python(FINGERPRINT.format("portable", 2)) not in ("", numerics.fingerprint())


def test_the_fingerprint_has_no_memory():
    first = numerics.fingerprint()
    torch.manual_seed(5)
    torch.rand(10)
    assert numerics.fingerprint() == first


def test_pinning_after_torch_was_imported_is_refused():
    assert "RuntimeError: torch was imported before numerics" in python("import torch; from surefoot.training.numerics import pin; pin('portable', 1)")


def test_pinning_twice_alike_is_fine_and_unlike_is_not():
    numerics.pin("portable", 1)
    for profile, threads in (("avx2", 1), ("native", 1), ("portable", 2)):
        with pytest.raises(RuntimeError, match="torch was imported before numerics"):
            numerics.pin(profile, threads)
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_native_takes_out_what_the_environment_had_set():
    code = "import os; from surefoot.training.numerics import pin; pin('native', 1); print(os.environ.get('MKL_CBWR'), os.environ.get('ATEN_CPU_CAPABILITY'))"
    assert python(code, MKL_CBWR="COMPATIBLE", ATEN_CPU_CAPABILITY="default") == "None None"


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
