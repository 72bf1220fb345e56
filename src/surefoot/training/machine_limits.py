"""What this machine can't compute, of what params.yaml may ask for."""

import os

from surefoot.base.errors import UserError

MOST_THREADS = 64  # that OpenBLAS is built for in NumPy's wheels; so many torch can do with on any machine


def too_many_threads(threads: int, profile: str, device: str) -> str:
    """Why so many threads can't be computed with here; empty where they can."""
    if threads <= MOST_THREADS:
        return ""
    if profile == "portable" and device == "cpu":
        return f"numerics: portable computes by OpenBLAS, which takes {MOST_THREADS} threads at most, not {threads}"
    # Threads wait for each other in a loop: of 256 on 2 cores each step takes minutes, and nothing says why.
    cores = os.cpu_count() or 1
    return (
        f"{threads} threads on the {cores} cores of this machine would wait for each other; at most"
        f" {max(cores, MOST_THREADS)}"
        if threads > cores
        else ""
    )


def check_precision(precision: str, profile: str, device: str) -> None:
    """See whether numbers of a precision can be computed with.

    Raises:
        UserError: they can't.
    """
    import torch

    if precision != "bfloat16":
        return
    if device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(f"train.precision: {torch.cuda.get_device_name()} has no bfloat16; set float32")
    if device == "cpu" and (profile != "native" or not torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        need = "numerics: native" if profile != "native" else "a processor with AVX-512"
        raise UserError(f"train.precision: bfloat16 on the CPU needs {need}; set that, or float32")
