"""The floor: the model's inference alone, on arrays that are ready, at the camera's rate, until it is interrupted.

    python -m ropes_ros.bench.estimator.floor MODEL PICTURES RATE LOG

The session has the node's options. LOG gets int64 [N, 2]: when each inference began (ns since the epoch) and how long
it took (ns).
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import numpy as np

from ropes_ros.encoder import load_encoder

READY = 8
"""Pictures that are held ready and take turns."""


def main(arguments: list[str]) -> int:
    """Run until SIGINT."""
    model, pictures, rate, log = arguments
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGINT, stop)
    encoder = load_encoder(Path(model), threads=1)
    stored = np.load(pictures, mmap_mode="r")
    ready = [np.array(stored[number]) for number in range(min(READY, len(stored)))]
    taken = []
    start, number = time.monotonic(), 0
    while not stopping:
        time.sleep(max(0.0, start + number / float(rate) - time.monotonic()))
        began, clock = time.time_ns(), time.perf_counter_ns()
        encoder.run(ready[number % len(ready)])
        taken.append((began, time.perf_counter_ns() - clock))
        number += 1
    np.save(log, np.array(taken, dtype=np.int64).reshape(-1, 2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
