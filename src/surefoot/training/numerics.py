"""Which kernels compute: pinned before torch is imported, and told apart by a fingerprint."""

import hashlib
import itertools
import os
import platform
import sys
from contextlib import nullcontext
from functools import cache
from typing import Any

from surefoot.base.errors import UserError
from surefoot.training.machine_limits import too_many_threads

# None: the variable must not be set. Measured on Intel and AMD; docs/numerics.md has the table.
PROFILES: dict[str, dict[str, str | None]] = {
    "portable": {
        "MKL_CBWR": "COMPATIBLE",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "avx2": {
        "MKL_CBWR": "AVX2,STRICT",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": None,
    },
    "native": {"MKL_CBWR": None, "ATEN_CPU_CAPABILITY": None, "ONEDNN_MAX_CPU_ISA": None, "OPENBLAS_CORETYPE": None},
}
# What else in the environment picks kernels, their precision, or fewer threads than were asked for.
UNSET = (
    *(
        "DNNL_MAX_CPU_ISA",
        "ONEDNN_DEFAULT_FPMATH_MODE",
        "DNNL_DEFAULT_FPMATH_MODE",
        "ONEDNN_CPU_ISA_HINTS",
        "DNNL_CPU_ISA_HINTS",
    ),
    *(
        "MKL_ENABLE_INSTRUCTIONS",
        "MKL_DEBUG_CPU_TYPE",
        "MKL_DOMAIN_NUM_THREADS",
        "OMP_THREAD_LIMIT",
        "OMP_MAX_ACTIVE_LEVELS",
    ),
)


def pin(profile: str, threads: int, deterministic: bool = True, device: str = "cpu") -> None:
    """Pin kernels and threads. Torch reads these settings once, when it is imported: call this first.

    Args:
        profile: one of `PROFILES`.
        threads: CPU threads.
        deterministic: refuse operations that have no deterministic kernel; else torch warns of them.
        device: cpu, cuda or mps: what trains.

    Raises:
        RuntimeError: torch is imported already, under other settings, or didn't take these.
        UserError: the processor lacks what the profile needs; the device isn't there; there are too many threads.
    """
    if wrong := too_many_threads(threads, profile, device):
        raise UserError(f"params.yaml: threads: {wrong}")
    _pin_environment(profile, threads, device)

    import torch

    x86 = platform.machine() in ("x86_64", "AMD64")
    if profile != "native" and x86 and not torch.cpu._is_avx2_supported():
        raise UserError(f"numerics: {profile} needs a processor with AVX2, which this one lacks; set numerics: native")
    _pin_device(device)
    torch.set_num_threads(threads)
    # The same as use_deterministic_algorithms(True), which also imports the compiler: two seconds.
    torch.set_deterministic_debug_mode("error" if deterministic else "warn")
    # Deterministic mode also fills new memory with NaN, which only hides or shows bugs, and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if x86 and sys.platform == "linux":
        took = torch.backends.cpu.get_cpu_capability()
        if profile != "native" and took != "AVX2":
            raise RuntimeError(f"numerics {profile!r} did not take effect: torch computes with {took}")
        if profile == "portable" and device == "cpu":
            from surefoot.training.exact_roots import install_roots
            from surefoot.training.openblas_linear import install_linear

            install_linear(threads)
            install_roots()
    if torch.get_num_threads() != threads:
        raise RuntimeError(f"threads: {threads} did not take effect: torch computes on {torch.get_num_threads()}")


def _pin_environment(profile: str, threads: int, device: str) -> None:
    """Set the variables that torch reads when it is imported."""
    threading = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)) | {
        "OMP_DYNAMIC": "FALSE",
        "MKL_DYNAMIC": "FALSE",
    }
    # cuBLAS computes the same bits each time only with a workspace of its own.
    of_device = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if device == "cuda" else {}
    wanted: dict[str, str | None] = {**dict.fromkeys(UNSET), **PROFILES[profile], **threading, **of_device}
    if any(os.environ.get(name) != value for name, value in wanted.items()) and "torch" in sys.modules:
        raise RuntimeError(f"torch was imported before numerics {profile!r} could be pinned")
    for name, value in wanted.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _pin_device(device: str) -> None:
    """Check that a device is there, and let its random numbers be seeded at each step, too."""
    import torch

    _generators.clear()
    if device == "cpu":
        return
    backend = {"cuda": torch.cuda, "mps": torch.backends.mps}[device]
    if not backend.is_available():
        raise UserError(f"device: torch {torch.__version__} finds no {device} device here; set device: cpu")
    if device == "cuda":
        torch.cuda.init()
        _generators.append(torch.cuda.default_generators[torch.cuda.current_device()])
        # Full float32; the fast ways round otherwise, and a benchmark would choose by time.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    else:
        _generators.append(torch.mps._get_default_mps_generator())


_generators: list[Any] = []  # of the device that trains, where it isn't the CPU


def settings() -> dict[str, Any]:
    """What any code in this process can change that changes bits; measured, as docs/numerics.md tells."""
    import torch

    return {
        "torch.get_num_threads()": torch.get_num_threads(),
        "torch.get_default_dtype()": torch.get_default_dtype(),
        # torch.set_float32_matmul_precision changes them, too. "none" is the default, which is "ieee".
        **{
            f"torch.backends.mkldnn.{kind}.fp32_precision": (
                getattr(torch.backends.mkldnn, kind).fp32_precision.replace("none", "ieee")
            )
            for kind in ("matmul", "conv", "rnn")
        },
        "torch.get_deterministic_debug_mode()": torch.get_deterministic_debug_mode(),
        "torch.backends.mkldnn.enabled": torch._C._get_mkldnn_enabled(),
        "torch.backends.cuda.flash_sdp_enabled()": torch.backends.cuda.flash_sdp_enabled(),
        "torch.backends.cuda.math_sdp_enabled()": torch.backends.cuda.math_sdp_enabled(),
        # set_flush_denormal has no getter.
        "torch.set_flush_denormal()": (torch.tensor([1e-39]) * 1.0).item() == 0,
    }


def seed_step(seed: int, step: int) -> None:
    """Seed torch's generator for one step, so that randomness is a function of (seed, step). About 2 microseconds."""
    import torch

    # The CPU generator takes 32 bits. Step 0 is for the first weights.
    number = (_base(seed) + step * 0x9E3779B9) & 0xFFFFFFFF
    torch.default_generator.manual_seed(number)
    for generator in _generators:
        generator.manual_seed(number)


@cache
def _base(seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"surefoot {seed}".encode()).digest()[:4], "little")


def fingerprint(device: str = "cpu", precision: str = "float32") -> str:
    """A digest of small operations as this process computes them on a device, of torch's version and the thread count.

    For bfloat16 also of the same by autocast: processors that round float32 alike may have other instructions for it.

    Machines with one fingerprint round alike. Takes a few milliseconds; leaves the generator seeded.
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.default_generator.manual_seed(0)
    digest = hashlib.sha256(f"{torch.__version__.partition('+')[0]} {torch.get_num_threads()}".encode())
    dense = nn.Sequential(nn.Linear(75, 131), nn.GELU(), nn.LayerNorm(131), nn.Dropout(0.2), nn.Linear(131, 11))
    image = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(45, 11)
    )
    if device == "cuda":
        digest.update(f"{torch.cuda.get_device_name()} {torch.version.cuda} {torch.backends.cudnn.version()}".encode())
    ways: list[Any] = [nullcontext(), *([torch.autocast(device, torch.bfloat16)] if precision == "bfloat16" else [])]
    for way, (model, inputs) in itertools.product(
        ways, [(dense, torch.randn(67, 75)), (image, torch.randn(67, 3, 8, 8))]
    ):
        model.to(device)
        for _ in range(2):
            with way:
                loss = F.cross_entropy(model(inputs.to(device)), torch.arange(67, device=device) % 11)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.sub_(parameter.grad if parameter.grad is not None else 0)
                    parameter.grad = None
        for tensor in model.state_dict().values():
            digest.update(tensor.cpu().numpy().tobytes())
            digest.update(tensor.abs().sqrt().cpu().numpy().tobytes())
    return digest.hexdigest()
