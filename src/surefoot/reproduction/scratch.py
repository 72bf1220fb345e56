"""A temporary directory and the processes that work in it: both are gone when this process is, however it ends."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Thread
from typing import IO

from surefoot.base import terminal
from surefoot.reproduction import guard

Process = subprocess.Popen[bytes]
SECONDS_TO_READ = 5


class Scratch:
    """Use it in a `with` block. It lies in the system's temporary directory, or within the one that is given."""

    def __init__(self, purpose: str = "verify", within: Path | None = None) -> None:
        self._purpose, self._within = purpose, within
        self._readers: dict[int, list[Thread]] = {}

    def __enter__(self) -> "Scratch":
        self.path = Path(tempfile.mkdtemp(prefix=f"surefoot-{self._purpose}-", dir=self._within)).resolve()
        command = [sys.executable, "-I", "-S", str(guard.__file__), str(self.path)]
        # A session of its own: Ctrl-C in the terminal isn't for it.
        self._guard = subprocess.Popen(
            command,
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        (self.path / "tmp").mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._guard.communicate()

    def start(
        self,
        command: list[str],
        cwd: Path,
        environment: dict[str, str],
        out: int | IO[str] | None = None,
        err: int | None = None,
    ) -> Process:
        """Start a process and those that it starts as a group, so that all of them can be stopped.

        What they print is shown, as text, unless `out` or `err` says where it goes.
        """
        environment = environment | {"TMPDIR": str(self.path / "tmp")}
        to = [subprocess.PIPE if where is None else where for where in (out, err)]
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=to[0],
            stderr=to[1],
            start_new_session=True,
        )
        self._tell(f"+{process.pid}")
        readers = [
            Thread(target=terminal.pass_on, args=(pipe, pipe is process.stderr), daemon=True)
            for pipe in (process.stdout, process.stderr)
            if pipe
        ]
        for reader in readers:
            reader.start()
        self._readers[process.pid] = readers
        return process

    def run(self, command: list[str], cwd: Path, environment: dict[str, str], quiet: bool = False) -> int:
        """Run a process; returns its exit code."""
        nowhere = subprocess.DEVNULL if quiet else None
        return self.finish([self.start(command, cwd, environment, nowhere, nowhere)])

    def finish(self, processes: list[Process]) -> int:
        """Wait for processes; returns the first exit code that isn't 0. If this process is stopped, they are killed."""
        try:
            return next((code for code in [process.wait() for process in processes] if code), 0)
        finally:
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                for reader in self._readers.pop(process.pid, []):
                    reader.join(SECONDS_TO_READ)  # a process that it left behind may keep the pipe open
                self._tell(f"-{process.pid}")

    def _tell(self, line: str) -> None:
        assert self._guard.stdin
        try:
            self._guard.stdin.write(f"{line}\n".encode())
            self._guard.stdin.flush()
        except BrokenPipeError:  # somebody killed the guard; there's nothing to be told then
            pass
