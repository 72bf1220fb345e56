"""What is said where the system gives no more: memory, open files, the size of a file."""

import errno
import os
import resource
import subprocess
import sys

import pytest

from surefoot.base import limits

MB = 1 << 20
STAGES = ("prepare", "batch", "train", "evaluate")


def end(code, *limited):
    """Exit code, output and errors of Python code in a process with limits, (which, how much)."""

    def limit():
        for which, much in limited:
            resource.setrlimit(which, (much, much))

    # preexec_fn: the limits are to hold for that process alone.
    done = subprocess.run(
        [sys.executable, *code],
        env={**os.environ, "PYTHONPATH": "src"},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("which", "much", "said"),
    [
        (resource.RLIMIT_AS, 300 * MB, "memory is reached: `ulimit -v` is 307200"),
        (resource.RLIMIT_NOFILE, 16, "open files is reached: `ulimit -n` is 16"),
    ],
)
def test_too_little_for_any_stage(stage, which, much, said):
    assert end(["-m", f"surefoot.stages.{stage}"], (which, much)) == (2, "", f"error: the limit on {said}; raise it\n")


RUN = "from surefoot.base import errors\nerrors.begin_process()\n"


@pytest.mark.parametrize(
    ("main", "said"),
    [
        ("bytearray(1 << 40)", "the limit on memory is reached: `ulimit -v` is 2097152; raise it"),
        (
            "import numpy; numpy.zeros((1 << 20, 1 << 20))",
            "the limit on memory is reached: `ulimit -v` is 2097152; raise it",
        ),
        (
            "import pyarrow; pyarrow.allocate_buffer(1 << 40)",
            "the limit on memory is reached: `ulimit -v` is 2097152; raise it",
        ),
        (
            "import threading; threading.stack_size(1 << 40); threading.Thread(target=print).start()",
            "the limit on memory is reached: `ulimit -v` is 2097152",
        ),
        ("import os; os.abort()", "the limit on memory is reached: `ulimit -v` is 2097152; raise it"),
        (
            "import ctypes; ctypes.CDLL(None).exit(1)",
            "the limit on memory is reached: `ulimit -v` is 2097152; raise it",
        ),
        (
            "held = [open('/dev/null') for _ in range(100)]",
            "the limit on open files is reached: `ulimit -n` is 64; raise it",
        ),
        (
            "open('large', 'wb').write(bytes(1 << 20))",
            "the limit on the size of a file is reached: `ulimit -f` is 512; raise it",
        ),
        ("raise OSError(5, 'Input/output error', 'data/x')", "data/x: Input/output error: the disk fails"),
    ],
)
@pytest.mark.parametrize("while_importing", [False, True])
def test_the_limit_that_is_reached_is_named(tmp_path, monkeypatch, main, said, while_importing):
    """By `run`, and before it, where modules are imported."""
    monkeypatch.setenv("PYTHONPATH", os.path.abspath("src"))  # noqa: PTH100
    code = f"{RUN}import os\nos.chdir({str(tmp_path)!r})\n" + (
        main if while_importing else f"def main():\n    {main}\nerrors.run_process(main)"
    )
    code, _, err = end(
        ["-c", code], (resource.RLIMIT_AS, 2048 * MB), (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_FSIZE, 512 * 1024)
    )
    assert (code, err.count("\n")) == (2, 1), err
    assert said in err


def test_a_process_whose_memory_is_limited_ends_as_it_would_without_a_limit():
    limit = (resource.RLIMIT_AS, 2048 * MB)
    assert end(["-c", f"{RUN}print('done')"], limit) == (0, "done\n", "")
    assert end(["-c", f"{RUN}import sys; sys.exit(1)"], limit) == (1, "", "")
    code, _, err = end(["-c", f"{RUN}raise ValueError('a bug')"], limit)
    assert code == 1
    assert "Traceback" in err
    assert "limit" not in err
    # In short sleeps: one that begins just after the signal came isn't cut off by it.
    stop = (
        "import os, signal, time\ndef main():\n    os.kill(os.getppid(), signal.SIGTERM)\n"
        "    while True:\n        time.sleep(0.01)\nerrors.run_process(main)"
    )
    assert end(["-c", RUN + stop], limit) == (128 + 15, "", "stopped by SIGTERM\n")


def test_what_is_no_matter_of_the_systems():
    assert limits.explain(ValueError("a bug")) is None
    assert limits.explain(RuntimeError("mat1 and mat2 do not fit")) is None
    assert limits.explain(OSError("a library's own")) is None


def test_an_error_that_came_from_another():
    wrapped = ImportError("libx.so: cannot open shared object file: Too many open files")
    assert "the limit on open files is reached: `ulimit -n` is " in limits.explain(wrapped)
    outer = ValueError("can't be built")
    outer.__cause__ = OSError(errno.EMFILE, "Too many open files")
    assert "`ulimit -n`" in limits.explain(outer)
