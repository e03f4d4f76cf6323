"""A group of processes ends together and in order, whatever is sent to the one that started it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = """
import signal, sys, time
def end(number, frame):
    time.sleep(1.0)
    open(sys.argv[1], "w").write("closed")
    sys.exit(0)
signal.signal(signal.SIGINT, end)
print("ready", flush=True)
time.sleep(60)
"""
PARENT = """
import sys
from ropes_ros.processes import Processes
with Processes() as processes:
    processes.wait(processes.start([sys.executable, "-c", sys.argv[1], sys.argv[2]]))
"""


@pytest.mark.parametrize("signals", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT), (signal.SIGHUP,)])
def test_an_impatient_user_does_not_cut_the_closing_short(tmp_path: Path, signals: tuple[signal.Signals, ...]) -> None:
    """The child takes a second to close; the parent ends after it, though it is interrupted again meanwhile."""
    mark = tmp_path / "mark"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD, str(mark)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        for number in signals:
            parent.send_signal(number)
            time.sleep(0.3)
        assert parent.wait(20) != 0
        assert mark.read_text() == "closed"
