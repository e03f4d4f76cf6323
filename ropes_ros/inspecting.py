"""What is in a bag, and whether it is fit to train: topics, clocks, images, regimes, occupancy, visibility, drift.

A bag is passed through once; images are compared with the one before and a bounded number of them is decoded, so that
memory does not grow with the bag but for some bytes a frame. Measured joint states are looked at to compare them with
the commands, which is evaluation; nothing here is learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ropes_ros.bag_images import decode_image
from ropes_ros.bags import Bag, open_bag
from ropes_ros.cdr import header_stamp, parse_compressed_image, parse_image
from ropes_ros.commands import CommandTrack, load_commands
from ropes_ros.dataset import load_timeline
from ropes_ros.errors import RopesError
from ropes_ros.gaps import GapCounter
from ropes_ros.order_check import Told, told_by
from ropes_ros.regimes import Schedule
from ropes_ros.robot import Robot
from ropes_ros.tracking_report import tracking_report
from ropes_ros.truth import load_truth
from ropes_ros.units import NANOSECONDS

Array = NDArray[np.float64]

PAIRS = 600
"""Pairs of images that are decoded, evenly spread over the bag."""
APART_NS = NANOSECONDS // 20
"""Least time between the two images of a pair: long enough to move, short enough to stay near."""
SMOOTH = 20
"""Part of the recording over which the background's brightness is averaged: what is slower than the motion."""
CELLS = (64, 48)
"""(width, height) of the small pictures that changes are looked at in."""
KEPT = 4000
"""Offsets between clocks that are kept of each topic, evenly spread."""
JUMP_NS = NANOSECONDS // 2
"""Change of the offset between stamp and log time from one message to the next that counts as a jump."""
BINS = 16
"""Bins over [-1, 1] that total variation is taken over."""
CHANGED = 12.0
"""Change of a cell in grey levels that counts as movement."""
MOVE = 0.1
"""Move of a joint, in half ranges, that visibility is stated for."""
SEEN = 1e-4
"""Share of the image, for such a move, from which a joint counts as visible."""
ERRORS = 2.0
"""Standard errors that a joint's visibility must exceed."""
FEW_SEGMENTS, ENOUGH_SEGMENTS = 3, 10
"""Segments a level: fewer make a level unusable; as many are asked for."""
FAR = 0.1
"""Total variation between designed and commanded occupancy, beyond what chance explains, that is told."""
LITTLE, MUCH = 0.02, 0.05
"""Shares of lost and of repeated images that are told."""
BURNT = 0.25
"""Share of pixels at the ends of the range that is told."""
DARK, BRIGHT = 25.0, 230.0
DRIFT = 8.0
"""Change of the still background's brightness over the recording, in grey levels, that is told."""
SLOW_PPM = 500.0
"""Drift between stamps and log times that is told."""

_WITH_HEADER = (
    "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo",
    "sensor_msgs/msg/JointState", "trajectory_msgs/msg/JointTrajectory", "diagnostic_msgs/msg/DiagnosticArray",
)  # fmt: skip
_IMAGES = _WITH_HEADER[:2]

Progress = Callable[[int, int], None]
"""Called with (messages done, messages in all)."""


class Stream(NamedTuple):
    """A topic over time.

    Attributes:
        name: The topic.
        type_name: Its messages' type.
        count: Messages read.
        rate_hz: Messages a second over the time from first to last, 0 where there are fewer than two.
        longest_gap_s: Longest time without a message, by log time.
        missing: Messages missing by the stamps' period; None for types without a header.
        dropped: Messages that the recorder says it lost; None where it says nothing.
        backward: Stamps that are not later than the one before.
        offset_s: Median of log time minus stamp; not a number without stamps.
        drift_ppm: Drift of that offset in millionths; not a number where it cannot be told.
        jumps: Times that the offset jumped by more than half a second.
    """

    name: str
    type_name: str
    count: int  # type: ignore[assignment]  # hides tuple.count
    rate_hz: float
    longest_gap_s: float
    missing: int | None
    dropped: int | None
    backward: int
    offset_s: float
    drift_ppm: float
    jumps: int


@dataclass(frozen=True)
class Pictures:
    """What the images of the image topic are like.

    Attributes:
        count: How many.
        encodings: Encoding (or format) to number of images.
        sizes: (width, height) of those decoded.
        repeated: Images whose bytes equal those of the one before.
        brightness: Mean grey level, and its standard deviation over time.
        dark: Share of pixels of 5 grey levels or less.
        bright: Share of pixels of 250 grey levels or more.
        background: Times in s from the first image and mean grey level of what stands still, smoothed, float64 [M, 2].
        background_change: Last fifth minus first fifth of it, grey levels.
        samples: A few images, uint8 [H, W, 3].
        changes: Per cell, the mean change between the images of a pair, grey levels, float64 [h, w].
    """

    count: int
    encodings: Mapping[str, int]
    sizes: tuple[tuple[int, int], ...]
    repeated: int
    brightness: tuple[float, float]
    dark: float
    bright: float
    background: Array
    background_change: float
    samples: tuple[NDArray[np.uint8], ...] = field(repr=False)
    changes: Array = field(repr=False)


@dataclass(frozen=True)
class JointFindings:
    """What a bag tells of a joint.

    Attributes:
        name: The joint.
        frames: Images at each level, int64 [K].
        segments: Segments of each level, int64 [K].
        commanded_tv: Total variation between designed and commanded occupancy, mean over levels; not a number without.
        commanded_w1: Wasserstein-1 distance of the same, half ranges.
        reached_tv: As `commanded_tv`, of measured positions.
        reached_w1: As `commanded_w1`, of measured positions.
        visible: Share of the image that changes when it alone moves by a tenth of a half range; an estimate.
        seen_where: Root mean square change of each cell then, grey levels, float64 [h, w]; empty without commands.
        time: How well the time tells its level.
        light: How well the brightness of the still background tells it.
    """

    name: str
    frames: NDArray[np.int64]
    segments: NDArray[np.int64]
    commanded_tv: float
    commanded_w1: float
    reached_tv: float
    reached_w1: float
    visible: float
    seen_where: Array = field(repr=False)
    time: Told
    light: Told


@dataclass(frozen=True)
class Inspection:
    """All that is said of a bag.

    Attributes:
        path: The bag.
        seconds: From its first message to its last.
        streams: Its topics.
        pictures: Its images; None without.
        schedule: What was designed; None where it is not known.
        joints: What is known of each joint; empty without a schedule.
        occupancy: u of commands at the images with a label, float64 [N, J], and these labels, int16 [N, J]; of at most
            some ten thousand images.
        faults: What makes the bag unfit to train, one sentence each.
        warnings: What is weak.
        remarks: What could not be looked at, and why.
    """

    path: Path
    seconds: float
    streams: tuple[Stream, ...]
    pictures: Pictures | None
    schedule: Schedule | None
    joints: tuple[JointFindings, ...]
    occupancy: tuple[Array, NDArray[np.int16]] | None
    faults: tuple[str, ...]
    warnings: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def fit(self) -> bool:
        """Whether nothing speaks against training with it."""
        return not self.faults

    @property
    def sequential(self) -> bool:
        """Whether levels are held in blocks of time, or follow the light."""
        return any(joint.time.flagged or joint.light.flagged for joint in self.joints)

    @property
    def verdict(self) -> str:
        """In words."""
        if self.faults:
            return "not fit to train: record again, or more, as said below"
        if self.warnings:
            return "fit to train, with weak spots"
        return "fit to train"


def inspect_bag(
    path: str | Path,
    *,
    robot: Robot | None = None,
    topics: Mapping[str, str] | None = None,
    schedule: Schedule | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Look at a bag.

    Args:
        path: The bag.
        robot: The robot that was commanded, where it is none of the bundled presets.
        topics: Role to topic name, for bags from elsewhere.
        schedule: The schedule, for bags that do not hold it.
        progress: Called now and then.

    Raises:
        BagError: It is no bag, or damaged.
    """
    path = Path(path)
    remarks: list[str] = []
    with open_bag(path, topics=topics, schedule=schedule) as bag:
        image_topic = _or_remark(lambda: bag.topic("image"), remarks)
        passed = _pass(bag, image_topic, progress)
        drops = {} if bag.header is None else bag.header.drops
        streams = tuple(watch.stream(drops.get(name)) for name, watch in passed.watches.items())
        plan = _or_remark(lambda: bag.schedule, remarks)
        timeline = None if plan is None else _or_remark(lambda: load_timeline(bag), remarks)
        seconds = (bag.end_ns - bag.start_ns) / NANOSECONDS
    pictures = passed.pictures()
    if plan is None or timeline is None or pictures is None:
        faults, warnings = _judged(streams, image_topic, pictures, plan, (), 0, 0.0)
        return Inspection(path, seconds, streams, pictures, plan, (), None, faults, warnings, tuple(remarks))
    stamps = np.unique(np.asarray(passed.stamps, dtype=np.int64))
    labels, segments = timeline.labels_at(stamps), timeline.segment_ids_at(stamps)
    track = _or_remark(lambda: load_commands(path, robot, topics=topics), remarks)
    truth = _or_remark(lambda: load_truth(path, stamps, joint_names=plan.joint_names, topics=topics), remarks)
    joints = _joints(plan, stamps, labels, segments, track, truth, passed, timeline)
    labelled = int((labels >= 0).any(axis=1).sum())
    faults, warnings = _judged(streams, image_topic, pictures, plan, joints, labelled, seconds)
    if truth is not None:
        warnings = (*warnings, *tracking_report(plan, labels, truth).sentences)
    chosen = np.unique(np.linspace(0, len(stamps) - 1, min(len(stamps), 20_000)).astype(np.int64))
    occupancy = None if track is None else (track.at(stamps[chosen]), labels[chosen])
    return Inspection(
        path, seconds, streams, pictures, plan, joints, occupancy, faults, tuple(warnings), tuple(remarks)
    )


def _or_remark(read: Callable[[], Any], remarks: list[str]) -> Any:
    """What can be read, or None and why it cannot."""
    try:
        return read()
    except RopesError as error:
        remarks.append(str(error))
        return None


class _Watch:
    """A topic as it passes by."""

    def __init__(self, name: str, type_name: str) -> None:
        self.name, self.type_name = name, type_name
        self.count, self._first, self._last, self._gap = 0, 0, 0, 0
        self._stamped = type_name in _WITH_HEADER
        self._gaps, self._last_stamp, self._backward, self._jumps = GapCounter(), 0, 0, 0
        self._offset: int | None = None
        self._every, self._pairs = 1, [(0, 0)][:0]

    def take(self, log_time_ns: int, data: bytes) -> int:
        """Take note of a message; its stamp in ns, 0 for none."""
        if self.count:
            self._gap = max(self._gap, log_time_ns - self._last)
        else:
            self._first = log_time_ns
        self._last = log_time_ns
        self.count += 1
        stamp = header_stamp(data) if self._stamped else 0
        if stamp:
            self._gaps.add(stamp)
            self._backward += stamp <= self._last_stamp
            self._last_stamp = stamp
            offset = log_time_ns - stamp
            self._jumps += self._offset is not None and abs(offset - self._offset) > JUMP_NS
            self._offset = offset
            if self.count % self._every == 0:
                self._pairs.append((log_time_ns, offset))
                if len(self._pairs) > KEPT:
                    self._pairs, self._every = self._pairs[::2], 2 * self._every
        return stamp

    def stream(self, dropped: int | None) -> Stream:
        """What was seen."""
        seconds = (self._last - self._first) / NANOSECONDS
        pairs = np.array(self._pairs, dtype=np.int64).reshape(-1, 2)
        offset, drift = float("nan"), float("nan")
        if len(pairs):
            offset = float(np.median(pairs[:, 1])) / NANOSECONDS
        if len(pairs) > 20 and seconds > 30.0 and not self._jumps:
            drift = 1e6 * float(np.polyfit((pairs[:, 0] - pairs[0, 0]) / 1e9, (pairs[:, 1] - pairs[0, 1]) / 1e9, 1)[0])
        periodic = self._stamped and self.type_name != _WITH_HEADER[5]
        return Stream(
            self.name,
            self.type_name,
            self.count,
            (self.count - 1) / seconds if seconds > 0 else 0.0,
            self._gap / NANOSECONDS,
            self._gaps.missing if periodic else None,
            dropped,
            self._backward if periodic else 0,
            offset,
            drift,
            self._jumps,
        )


class _Pass:
    """What one pass through a bag gathers; of images small pictures of pairs, in grey levels."""

    def __init__(self) -> None:
        self.watches: dict[str, _Watch] = {}
        self.stamps: list[int] = []
        self.encodings: dict[str, int] = {}
        self.sizes: set[tuple[int, int]] = set()
        self.repeated = 0
        self.times: list[tuple[int, int]] = []
        self.small: list[NDArray[np.uint8]] = []
        self.means: list[float] = []
        self.ends: list[tuple[float, float]] = []
        self.samples: list[NDArray[np.uint8]] = []

    def note(self, data: bytes, compressed: bool, topic: str, wanted: bool) -> NDArray[np.uint8]:
        """Small grey picture of an image, whose statistics are noted, and which is kept whole where wanted."""
        _, image = decode_image(data, compressed, topic)
        self.sizes.add((image.shape[1], image.shape[0]))
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        self.means.append(float(grey.mean()))
        self.ends.append((float((grey <= 5).mean()), float((grey >= 250).mean())))
        if wanted:
            self.samples.append(image.copy())
        return np.asarray(cv2.resize(grey, CELLS, interpolation=cv2.INTER_AREA), dtype=np.uint8)

    def pictures(self) -> Pictures | None:
        """What the images are like; None without any that could be decoded."""
        if not self.small:
            return None
        pairs = np.stack(self.small).reshape(-1, 2, CELLS[1], CELLS[0])
        changes = np.abs(pairs[:, 1].astype(np.float64) - pairs[:, 0])
        still = changes.mean(axis=0) <= np.quantile(changes.mean(axis=0), 0.5)
        seconds = (np.array([first for first, _ in self.times]) - self.times[0][0]) / NANOSECONDS
        background = np.stack([seconds, _smooth(pairs[:, 0][:, still].mean(axis=1))], axis=1)
        fifth = max(1, len(background) // 5)
        change = background[-fifth:, 1].mean() - background[:fifth, 1].mean()
        dark, bright = np.mean(self.ends, axis=0)
        return Pictures(
            len(self.stamps),
            dict(self.encodings),
            tuple(sorted(self.sizes)),
            self.repeated,
            (float(np.mean(self.means)), float(np.std(self.means))),
            float(dark),
            float(bright),
            background,
            float(change),
            tuple(self.samples),
            changes.mean(axis=0),
        )


def _smooth(values: Array) -> Array:
    """Mean over a window of one in `SMOOTH` of the values, shorter at the ends."""
    half = max(4, len(values) // SMOOTH) // 2
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - half, 0)
    last = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return np.asarray((sums[last] - sums[first]) / (last - first))


def _pass(bag: Bag, image_topic: str | None, progress: Progress | None) -> _Pass:
    """Read the bag once."""
    found = _Pass()
    found.watches = {name: _Watch(name, topic.type_name) for name, topic in bag.topics.items()}
    total = sum(topic.count for topic in bag.topics.values())
    images = 0 if image_topic is None else bag.topics[image_topic].count
    compressed = image_topic is not None and bag.topics[image_topic].type_name == _IMAGES[1]
    every = max(2, images // PAIRS)
    starts = np.arange(0, images, every)  # spread unevenly, so that commands of a fixed period are met at all phases
    starts += np.random.default_rng(0).integers(0, every, len(starts))
    kept = np.linspace(0, len(starts) - 1, min(6, len(starts))).astype(np.int64)
    wanted, shown = set(starts.tolist()), set(starts[kept].tolist())
    first: tuple[int, NDArray[np.uint8]] | None = None
    before: memoryview | None = None
    number = 0
    for done, message in enumerate(bag.messages()):
        if progress is not None and done % 500 == 0:
            progress(done, total)
        stamp = found.watches[message.topic].take(message.log_time_ns, message.data)
        if message.topic != image_topic:
            continue
        image = parse_compressed_image(message.data) if compressed else parse_image(message.data)
        kind = image.format if compressed else image.encoding  # type: ignore[union-attr]
        found.encodings[kind] = found.encodings.get(kind, 0) + 1
        found.repeated += before is not None and before == image.data
        before = image.data
        found.stamps.append(stamp)
        if first is None and number in wanted:
            first = stamp, found.note(message.data, compressed, message.topic, number in shown)
        elif first is not None and not 0 < stamp - first[0] < APART_NS:
            found.times.append((first[0], stamp))
            found.small += [first[1], found.note(message.data, compressed, message.topic, False)]
            first = None
        number += 1
    return found


def _joints(
    plan: Schedule,
    stamps: NDArray[np.int64],
    labels: NDArray[np.int16],
    segments: NDArray[np.int32],
    track: CommandTrack | None,
    truth: Array | None,
    passed: _Pass,
    timeline: Any,
) -> tuple[JointFindings, ...]:
    home = np.array([joint.home for joint in plan.joints])
    half = np.array([joint.half_range for joint in plan.joints])
    unknown = np.full((len(stamps), len(home)), np.nan)
    commanded = unknown if track is None else track.at(stamps)
    reached = unknown if truth is None else (truth - home) / half
    far = [tracking_report(plan, labels, home + half * u).mean for u in (commanded, reached)]
    apart = [occupancy_distance(plan, labels, u) for u in (commanded, reached)]
    times = np.array([first for first, _ in passed.times], dtype=np.int64)
    pictures = passed.pictures()
    assert pictures is not None
    visible, where = _visibility(passed, track)
    pair_labels, pair_segments = timeline.labels_at(times), timeline.segment_ids_at(times)
    seconds = (stamps - stamps[0]) / NANOSECONDS
    joints = []
    for joint, name in enumerate(plan.joint_names):
        held = np.array(
            [len(np.unique(segments[labels[:, joint] == level, joint])) for level in range(len(plan.levels))]
        )
        joints.append(
            JointFindings(
                name,
                np.bincount(labels[labels[:, joint] >= 0, joint], minlength=len(plan.levels)),
                held,
                float(apart[0][joint]),
                float(far[0][joint]),
                float(apart[1][joint]),
                float(far[1][joint]),
                float(visible[joint]) if len(visible) else float("nan"),
                where[joint] if len(where) else np.empty((0, 0)),
                told_by(seconds, labels[:, joint], segments[:, joint]),
                told_by(pictures.background[:, 1], pair_labels[:, joint], pair_segments[:, joint]),
            )
        )
    return tuple(joints)


def occupancy_distance(schedule: Schedule, labels: NDArray[np.int16], u: Array) -> Array:
    """Total variation between designed and found occupancy, over `BINS` bins, mean over the levels' frames.

    Args:
        schedule: What was designed.
        labels: Level of each joint at the frames, int16 [N, J], -1 for none.
        u: Positions there in half ranges, float64 [N, J], not a number where there are none.

    Returns:
        float64 [J]; not a number for a joint without frames.
    """
    edges = np.linspace(-1.0, 1.0, BINS + 1)
    grid, density = schedule.grid, schedule.commanded
    mass = np.concatenate(
        [np.zeros((*density.shape[:2], 1)), np.cumsum(0.5 * (density[..., 1:] + density[..., :-1]), axis=-1)], axis=-1
    )
    out = np.full(labels.shape[1], np.nan)
    for joint in range(labels.shape[1]):
        known = np.isfinite(u[:, joint])
        parts, counts = [], []
        for level in range(density.shape[1]):
            inside = known & (labels[:, joint] == level)
            if inside.any():
                wanted = np.diff(np.interp(edges, grid, mass[joint, level] / mass[joint, level, -1]))
                found = np.histogram(np.clip(u[inside, joint], -1.0, 1.0), edges)[0] / inside.sum()
                parts.append(0.5 * np.abs(found - wanted).sum())
                counts.append(inside.sum())
        if parts:
            out[joint] = np.average(parts, weights=counts)
    return out


def _visibility(passed: _Pass, track: CommandTrack | None) -> tuple[Array, Array]:
    """Share of the image that a joint's own move by `MOVE` changes [J], and by how much where [J, h, w].

    Squared changes between the images of a pair are regressed on squared moves commanded meanwhile: where joints move
    to either side independently of each other, what two of them do together averages out. The share is what would have
    to change by as much as changed cells do. Lag is not allowed for, and a joint that does not stand out from its
    standard error counts as not visible: it is an estimate.
    """
    if track is None:
        return np.empty(0), np.empty(0)
    times = np.array(passed.times, dtype=np.int64).reshape(-1, 2)
    moved = track.at(times[:, 1]) - track.at(times[:, 0])
    pairs = np.stack(passed.small).reshape(-1, 2, CELLS[1], CELLS[0]).astype(np.float64)
    known = np.isfinite(moved).all(axis=1)
    joints = moved.shape[1]
    if known.sum() < 4 * joints:
        return np.empty(0), np.empty(0)
    change = ((pairs[known, 1] - pairs[known, 0]) ** 2).reshape(int(known.sum()), -1)
    design = np.concatenate([np.ones((len(change), 1)), moved[known] ** 2], axis=1)
    still = design[:, 1:].std(axis=0) < 1e-8
    inverse = np.linalg.pinv(design.T @ design)
    cells = (inverse @ design.T @ change)[1:]
    whole = change.mean(axis=1)
    found = inverse @ design.T @ whole
    noise = np.sqrt(np.diag(inverse) * ((whole - design @ found) ** 2).mean())
    strong = change[change > CHANGED**2]
    share = found[1:] * MOVE**2 / (strong.mean() if len(strong) else CHANGED**2)
    share[found[1:] < ERRORS * noise[1:]] = 0.0
    share[still] = np.nan
    return share, MOVE * np.sqrt(cells.clip(0.0)).reshape(joints, CELLS[1], CELLS[0])


def _judged(
    streams: tuple[Stream, ...],
    image_topic: str | None,
    pictures: Pictures | None,
    plan: Schedule | None,
    joints: tuple[JointFindings, ...],
    labelled: int,
    seconds: float,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Faults and warnings."""
    faults: list[str] = []
    warnings: list[str] = []
    for stream in streams:
        if stream.jumps:
            warnings.append(
                f"{stream.name}: stamp and log time jumped apart {stream.jumps} times: a clock was set while recording"
            )
        if abs(stream.drift_ppm) > SLOW_PPM:
            warnings.append(
                f"{stream.name}: its stamps drift by {stream.drift_ppm:.0f} ppm against the recorder's clock: "
                "synchronise the clocks (chrony, PTP)"
            )
    if pictures is None:
        faults.append("there is no image that could be read: name the image topic (--topic image=NAME)")
    else:
        image = next(stream for stream in streams if stream.name == image_topic)
        _judge_images(image, pictures, faults, warnings)
        others = [s for s in streams if s.type_name != image.type_name and np.isfinite(s.offset_s) and s.count > 10]
        for other in others:
            if other.type_name.endswith(("JointState", "CameraInfo")) and abs(other.offset_s - image.offset_s) > 1.0:
                warnings.append(
                    f"stamps of {image.name} and {other.name} lie {abs(other.offset_s - image.offset_s):.1f} s apart "
                    "when they are recorded together: are both of one clock (use_sim_time)?"
                )
    if plan is None:
        faults.append("no schedule is known: give --schedule FILE, or make an intervention bag by `ropes import`")
    elif pictures is not None and not labelled:
        faults.append("no image lies in a regime: were camera and commander on one clock, and did the commander run?")
    elif pictures is not None and plan is not None:
        for joint in joints:
            _judge_joint(joint, plan, seconds, faults, warnings)
    return tuple(faults), tuple(warnings)


def _judge_images(image: Stream, pictures: Pictures, faults: list[str], warnings: list[str]) -> None:
    if len(pictures.sizes) > 1 or len(pictures.encodings) > 1:
        said = ", ".join(f"{width}x{height}" for width, height in pictures.sizes)
        kinds = ", ".join(pictures.encodings)
        faults.append(f"images change their size or encoding ({said}; {kinds}): record with one")
    lost = max(image.missing or 0, image.dropped or 0)
    if lost > LITTLE * image.count:
        warnings.append(f"{lost} images are missing beside {image.count}: lower the rate, or record to a faster disk")
    if pictures.repeated > MUCH * pictures.count:
        warnings.append(
            f"{pictures.repeated} of {pictures.count} images equal the one before: the camera is slower than its topic"
        )
    if image.backward:
        warnings.append(f"{image.backward} images are stamped no later than the one before")
    if max(pictures.dark, pictures.bright) > BURNT:
        warnings.append(
            f"{pictures.dark:.0%} of the pixels are black and {pictures.bright:.0%} white: set the exposure"
        )
    elif not DARK < pictures.brightness[0] < BRIGHT:
        warnings.append(f"the mean grey level is {pictures.brightness[0]:.0f} of 255: set the exposure")
    if pictures.changes.max() < 1.0:
        faults.append("nothing moves in the images: is the robot in view, and did it move?")
    if abs(pictures.background_change) > DRIFT:
        warnings.append(
            f"the still background changes by {pictures.background_change:+.0f} grey levels from start to end: "
            "harmless where the levels are spread over the recording; fix exposure and white balance, and the light"
        )


def _judge_joint(
    joint: JointFindings, plan: Schedule, seconds: float, faults: list[str], warnings: list[str]
) -> None:
    if not joint.frames.any():
        warnings.append(f"joint {joint.name} is never in a regime: it will not be learned")
        return
    few = [level for level, held in zip(plan.levels.ids, joint.segments, strict=True) if held < FEW_SEGMENTS]
    least = int(joint.segments.min())
    if few:
        more = seconds * (ENOUGH_SEGMENTS / max(1, least) - 1.0) / 60.0
        faults.append(
            f"joint {joint.name}: level{'s' if len(few) > 1 else ''} {', '.join(few)} held in fewer than "
            f"{FEW_SEGMENTS} segments: record some {max(1.0, more):.0f} min more"
        )
    elif least < ENOUGH_SEGMENTS:
        more = seconds * (ENOUGH_SEGMENTS / least - 1.0) / 60.0
        warnings.append(
            f"joint {joint.name}: {least} segments at its rarest level: {max(1.0, more):.0f} min more would give "
            f"{ENOUGH_SEGMENTS}"
        )
    for told, what in ((joint.time, "the time"), (joint.light, "the brightness of the still background")):
        if told.flagged:
            faults.append(
                f"joint {joint.name}: {what} tells {told.share:.0%} of its level beyond chance: levels are not spread "
                "at random over the recording, so that whatever drifts will be taken for the angle; record with a "
                "randomised schedule (`ropes schedule make`)"
            )
    chance = 0.4 / np.sqrt(max(1, int(joint.segments.sum())) / len(joint.segments))
    if joint.commanded_tv > FAR + chance:
        warnings.append(
            f"joint {joint.name}: the commands' occupancy is {joint.commanded_tv:.2f} (total variation) from the "
            "design: the motion was cut short, or the schedule is another"
        )
    if joint.visible < SEEN:
        faults.append(
            f"joint {joint.name}: hardly anything in the image changes when it moves (about {joint.visible:.2%} of the "
            "pixels for a tenth of its half range): turn the camera, come closer, or leave the joint out"
        )
