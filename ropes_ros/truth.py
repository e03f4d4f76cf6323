"""Measured joint positions at given times, for evaluation and for baselines that are given labels.

Nothing that learns without labels may import it.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ropes_ros.bags import Bag, open_bag
from ropes_ros.cdr import header_stamp
from ropes_ros.errors import BagError
from ropes_ros.units import NANOSECONDS

MAX_GAP_NS = NANOSECONDS // 4
"""Longest time between two joint states that is interpolated across, or held beyond first and last."""


def load_truth(
    bag_path: str | Path,
    stamps_ns: NDArray[np.int64],
    *,
    joint_names: Sequence[str] | None = None,
    topics: Mapping[str, str] | None = None,
) -> NDArray[np.float64]:
    """Joint positions that the robot reported, interpolated linearly.

    Not a number where no joint states lie within 0.25 s.

    Args:
        bag_path: The bag.
        stamps_ns: int64 [N], times in nanoseconds, in any order.
        joint_names: Joints to return; by default those of the bag's schedule, in the robot preset's order.
        topics: Topic of the role "joint_states", for bags from elsewhere.

    Returns:
        float64 [N, J] in radians.

    Raises:
        BagError: No joint states there, a joint is missing from them, or they cover less than half of the times, or
            fewer than the two that make a comparison.
    """
    with open_bag(bag_path, topics=topics) as bag:
        names = tuple(bag.schedule.joint_names if joint_names is None else joint_names)
        series = _series(bag, names)
    truth = np.stack([_interpolate(*series[name], stamps_ns) for name in names], axis=1)
    uncovered = int(np.isnan(truth).any(axis=1).sum())
    if 2 * uncovered > len(stamps_ns):
        raise BagError(
            f"{bag_path}: {uncovered} of {len(stamps_ns)} frames have no joint states within "
            f"{MAX_GAP_NS / NANOSECONDS} s: evaluate on a bag whose frames joint states cover"
        )
    if len(stamps_ns) - uncovered < 2:
        raise BagError(
            f"{bag_path}: joint states tell the truth of {len(stamps_ns) - uncovered} of its frames, two are the least "
            "to compare with: evaluate on a longer bag"
        )
    return truth


def _series(bag: Bag, names: tuple[str, ...]) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Times and positions per joint, in order of time; messages may hold any subset of the joints."""
    topic = bag.topic("joint_states")
    type_name = bag.topics[topic].type_name
    samples = {name: (array("q"), array("d")) for name in names}  # 16 bytes a state, however long the bag
    there: set[str] = set()
    for message in bag.messages([topic]):
        state = bag.deserialize(message.data, type_name)
        stamp_ns = header_stamp(message.data)
        there.update(state.name)
        for name, position in zip(state.name, state.position, strict=False):
            if name in samples:
                samples[name][0].append(stamp_ns)
                samples[name][1].append(float(position))
    missing = [name for name in names if not samples[name][0]]
    if missing:
        raise BagError(
            f"{bag.path}: {topic} has no position of joint {', '.join(missing)}; it has "
            f"{', '.join(sorted(there)) or 'none'}: was another robot recorded?"
        )
    series: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
    for name, (stamps, values) in samples.items():
        times, last = np.unique(np.frombuffer(stamps, dtype=np.int64)[::-1], return_index=True)
        positions = np.frombuffer(values)[::-1][last]  # of equal stamps the last one counts
        if not np.isfinite(positions).all():
            raise BagError(
                f"{bag.path}: {topic} has positions of joint {name} that are no numbers: mend its publisher"
            )
        series[name] = times, positions
    return series


def _interpolate(
    times: NDArray[np.int64], values: NDArray[np.float64], wanted: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Values at the wanted times; not a number where none are near."""
    after = np.clip(np.searchsorted(times, wanted), 0, len(times) - 1)
    before = np.clip(np.searchsorted(times, wanted, side="right") - 1, 0, len(times) - 1)
    outside = np.maximum(times[0] - wanted, wanted - times[-1])
    far = (times[after] - times[before] > MAX_GAP_NS) | (outside > MAX_GAP_NS)
    start = int(times[0])  # float64 holds nanoseconds since then, not since the epoch
    found = np.interp((wanted - start).astype(np.float64), (times - start).astype(np.float64), values)
    return np.where(far, np.nan, found)
