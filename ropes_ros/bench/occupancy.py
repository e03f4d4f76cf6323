"""Where a simulated robot, which lags and sags, spends its labelled time, against what was designed and commanded.

    python -m ropes_ros.bench.occupancy

Three distances, each the total variation over 32 equal parts of [-1, 1] (bins of 1/16 half range), per joint and level:

- from the design to the law under which sweeps are drawn (turns rounded within the limits),
- from the commanded positions of one schedule to the positions reached in it: lag and sag,
- from the design to the positions reached. A schedule of a finite number of segments is itself some way from its law;
  that distance, from the law to the commanded positions, is given beside it and falls with the schedule's length.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ropes_ros import occupancy
from ropes_ros.motion import Trajectory
from ropes_ros.regimes import make_schedule
from ropes_ros.robot import load_robot
from ropes_ros.sim.following import Faults, follow
from ropes_ros.units import NANOSECONDS

RATE = 30
HOURS = 6.0


def occupancy_figures(
    robot: str = "arm6", design: str = "factorial", hours: float = HOURS, seed: int = 0
) -> dict[str, Any]:
    """Occupancies of a schedule at default limits, with the default faults: lag, and sag under gravity.

    Args:
        robot: Robot preset with a `sim` section.
        design: Design of the schedule, with its default levels.
        hours: Length of the schedule.
        seed: Seed of the schedule.

    Returns:
        `occupancy_tv_max`, the largest distance from the design to the positions reached; the largest distance of each
        other kind; the bins' width in half ranges, the length in hours; and `joints`: per joint and level all of them.
    """
    arm = load_robot(robot)
    schedule = make_schedule(arm, duration_s=3600.0 * hours, seed=seed, design=design)
    frames = int(schedule.duration_ns * RATE / NANOSECONDS)
    stamps = np.round(np.arange(1, frames + 1) / RATE * NANOSECONDS).astype(np.int64)
    labels = schedule.labels_at(stamps)
    count = len(schedule.levels)
    reached = follow(arm, schedule, frames=frames, rate=RATE, faults=Faults(), seed=seed)
    commanded = Trajectory(arm, schedule).positions_at(stamps)
    design_shares, law = occupancy.designed(schedule), occupancy.lawful(schedule)
    sent, got = (occupancy.counted(arm.normalise(q), labels, count) for q in (commanded, reached))
    distances = {
        "designed_to_law": occupancy.total_variation(design_shares, law),
        "law_to_commanded": occupancy.total_variation(law, sent),
        "commanded_to_reached": occupancy.total_variation(sent, got),
        "designed_to_commanded": occupancy.total_variation(design_shares, sent),
        "designed_to_reached": occupancy.total_variation(design_shares, got),
    }
    return {
        "occupancy_tv_max": float(distances["designed_to_reached"].max()),
        **{f"{name}_max": float(values.max()) for name, values in distances.items()},
        "design": design,
        "hours": hours,
        "bin_half_ranges": 2.0 / occupancy.BINS,
        "smooth_s": schedule.smooth_ns / NANOSECONDS,
        "joints": {
            joint: {
                level: {name: round(float(values[j, k]), 4) for name, values in distances.items()}
                for k, level in enumerate(schedule.levels.ids)
            }
            for j, joint in enumerate(schedule.joint_names)
        },
    }


def main() -> None:
    """Print the figures as JSON."""
    print(json.dumps(occupancy_figures(), indent=1))


if __name__ == "__main__":
    main()
