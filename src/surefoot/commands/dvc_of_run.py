"""DVC as `surefoot run` starts it: `python -m surefoot.commands.dvc_of_run repro`.

A batch system sends SIGTERM to each process. DVC would end at once, and leave its stage behind. So it hears of it by
SIGINT alone, as from Ctrl-C: then it waits for the stage. It ends with the process that started it, and the stage with
it.
"""

import os
import signal
import sys
import threading
import time


def main() -> None:
    """Call DVC."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored where a script has `surefoot run &`
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        from dvc.cli import main as call_dvc  # takes seconds, in which DVC doesn't see to Ctrl-C yet

        sys.exit(call_dvc(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(128 + signal.SIGHUP)


if __name__ == "__main__":
    main()
