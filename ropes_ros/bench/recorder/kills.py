"""What a kill costs: the recorder killed (SIGKILL) at random moments of a recording, and what is left of each bag."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropes_ros.bags import open_bag, recover
from ropes_ros.bench.estimator.watcher import Heard, Watcher
from ropes_ros.cdr import header_stamp
from ropes_ros.errors import RopesError
from ropes_ros.processes import Processes, node_command
from ropes_ros.regimes import make_schedule
from ropes_ros.robot import load_robot

IMAGES = "/camera/image_raw"
ROBOT = "arm6"
SIZE = (96, 72)
MOMENTS_S = (1.0, 6.0)
"""Between which, from the bag's first image on, the kill comes."""
LONGEST_S = 20.0
"""Longest that one recording takes, its start included."""
WAIT_S = 60.0


def kill_figures(
    out: Path, *, kills: int = 50, seed: int = 0, on_step: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Record the simulated arm while it is commanded, and kill the recorder, again and again; then mend the bags.

    Args:
        out: Folder for bags and logs; it must not hold bags of an earlier run.
        kills: How often.
        seed: Of the moments.
        on_step: Told what begins.

    Returns:
        "kills", "recovered" (bags that open and give `STEPS` steps of training), "seconds_lost_max", between the last
        image that was published before a kill and the last one in the bag, the list "seconds_lost", and "problems".

    Raises:
        RopesError: The simulated arm or the commander does not start.
    """
    out.mkdir(parents=True, exist_ok=True)
    schedule = make_schedule(load_robot(ROBOT), duration_s=kills * LONGEST_S + WAIT_S, seed=seed)
    schedule.save(out / "schedule.yaml")
    moments = random.Random(seed)
    last_seen = []
    with Watcher() as watcher, Processes() as processes, (out / "nodes.log").open("ab") as log:

        def start(node: str, parameters: dict[str, object]) -> Any:
            return processes.start(node_command(node, {"robot": ROBOT, **parameters}), output=log.fileno())

        with watcher.listen(IMAGES, images=True) as heard:
            start("sim_arm", {"camera_width": SIZE[0], "camera_height": SIZE[1]})
            start("commander", {"schedule": str(out / "schedule.yaml"), "armed": True})
            _wait_for(watcher, lambda: len(heard.pairs) > 0, "the simulated arm's images", out)
            for number in range(kills):
                on_step(f"kill {number + 1} of {kills}")
                bag = out / f"bag_{number}"
                recorder = start("recorder", {"path": str(bag), "schedule": str(out / "schedule.yaml")})
                _wait_for(watcher, lambda bag=bag: _size(bag) > 20_000, "the recording", out)  # type: ignore[misc]
                watcher.spin(moments.uniform(*MOMENTS_S))
                recorder.kill()
                killed_ns = time.time_ns()
                recorder.wait()
                watcher.spin(0.2)
                last_seen.append(_newest(heard, killed_ns))
    lost, problems, recovered = [], [], 0
    from ropes_ros.learning.few_steps import FewSteps

    trainer = FewSteps(schedule, out / "cache")
    for number, seen_ns in enumerate(last_seen):
        try:
            recover(out / f"bag_{number}")
            lost.append(max(0.0, (seen_ns - _last_stamp(out / f"bag_{number}")) * 1e-9))
            on_step(f"bag {number + 1} of {kills} is recovered, {lost[-1]:.2f} s of it are lost; training from it")
            trainer.train(out / f"bag_{number}")
            recovered += 1
        except RopesError as error:
            problems.append(str(error))
    return {
        "kills": kills,
        "recovered": recovered,
        "seconds_lost_max": max(lost) if len(lost) == kills else None,
        "seconds_lost": lost,
        "problems": problems,
    }


def _newest(heard: Heard, before_ns: int) -> int:
    """Stamp of the newest image that was heard before a moment, ns."""
    pairs: NDArray[np.int64] = heard.array()
    return int(pairs[pairs[:, 1] <= before_ns, 0].max())


def _last_stamp(bag: Path) -> int:
    with open_bag(bag) as recovered:
        return max(header_stamp(entry.data) for entry in recovered.messages([IMAGES]))


def _size(bag: Path) -> int:
    return sum(file.stat().st_size for file in bag.glob("*.mcap"))


def _wait_for(watcher: Watcher, condition: Callable[[], bool], what: str, out: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise RopesError(f"{what} did not come within {WAIT_S:.0f} s; see {out / 'nodes.log'}")
        watcher.spin(0.1)
