"""Run a command that is told to end when the process that started it dies, however that dies.

    python tether.py PARENT COMMAND...

On Linux; elsewhere the command just runs. It is a program of its own because between fork and exec of a process that
has threads nothing but the exec is safe, and of the standard library alone because it must start at once.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Become the command, which gets SIGTERM when the thread of process `parent` that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before it could be watched
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
