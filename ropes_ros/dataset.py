"""From an intervention bag to labelled frames: images, the level of each joint, and the densities commanded.

There are no angles here. The loader asks the bag for the image and the regime topic and for nothing else, so
it cannot hand out what a joint state message says; measured positions are the business of `ropes_ros.truth`,
for evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ropes_ros.bag_images import BagPixels, Progress, cached_images
from ropes_ros.bags import Bag, open_bag
from ropes_ros.errors import BagError, RopesError, TrainingError
from ropes_ros.framing import Crop, Region
from ropes_ros.regimes import RegimeState, RegimeTimeline, Schedule, regime_from_msg
from ropes_ros.units import NANOSECONDS


class PixelSource(Protocol):
    """Where the pixels of frames are kept at the camera's resolution."""

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The region's pixels of chosen frames.

        Args:
            indices: int64 [n], increasing positions in the frame set.

        Returns:
            uint8 [n, H, W, 3] RGB, H and W those of the region.
        """
        ...


@dataclass(frozen=True)
class FrameSet:
    """Frames of one bag in order of their stamps, with what is known of how they came about.

    Attributes:
        images: uint8 [N, h, w, 3] RGB, memory-mapped.
        stamps_ns: int64 [N], header stamps in nanoseconds, strictly increasing.
        labels: int16 [N, J], index of the level that each joint was commanded at, -1 for none.
        segments: int32 [N, J], id of the segment of each joint, -1 for none.
        joint_names: Names of the J joints in the robot preset's order.
        level_ids: Names of the K levels.
        grid: float64 [G], normalised angle u on [-1, 1].
        log_density: float64 [J, K, G], log of the density really commanded, per unit of u.
        level_label_noise: Standard deviation in half ranges of the position label that a level amounts to.
        robot: Name of the robot preset.
        schedule_hash: Hash of the schedule that was commanded.
        camera_size: (width, height) in pixels of the recorded images.
        region: The part of the recorded images that `images` show.
        bag_hash: SHA-256 of the bag's storage.
        duplicates: Number of images left out because their stamp had been seen.
        details: The region's pixels at the camera's resolution, where they are kept.
        home: Joint angle at u = 0 that was commanded, float64 [J], rad; empty where it is not known.
        half_range: Joint angle from u = 0 to u = 1, float64 [J], rad; empty where it is not known.
    """

    images: NDArray[np.uint8]
    stamps_ns: NDArray[np.int64]
    labels: NDArray[np.int16]
    segments: NDArray[np.int32]
    joint_names: tuple[str, ...]
    level_ids: tuple[str, ...]
    grid: NDArray[np.float64]
    log_density: NDArray[np.float64]
    level_label_noise: float
    robot: str
    schedule_hash: str
    camera_size: tuple[int, int]
    region: Region
    bag_hash: str
    duplicates: int
    details: PixelSource | None = None
    home: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    half_range: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def description(self) -> dict[str, Any]:
        """Where the frames come from, as plain values."""
        return {
            "robot": self.robot,
            "joint_names": list(self.joint_names),
            "level_ids": list(self.level_ids),
            "level_label_noise": self.level_label_noise,
            "schedule_hash": self.schedule_hash,
            "camera_size": list(self.camera_size),
            "region": list(self.region),
            "bag_hash": self.bag_hash,
            "frames": len(self),
            "home": self.home.tolist(),
            "half_range": self.half_range.tolist(),
        }


class Split(NamedTuple):
    """Frames assigned to uses by contiguous spans of time.

    Attributes:
        train, validation, calibration: int64 indices of frames with at least one label, increasing.
        labels: int16 [N, J], the frames' labels without those of segments that reach into two uses.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    calibration: NDArray[np.int64]
    labels: NDArray[np.int16]


def load_frames(
    bag_path: str | Path,
    *,
    size: tuple[int, int],
    cache_dir: str | Path,
    topics: Mapping[str, str] | None = None,
    schedule: Schedule | None = None,
    schedule_start_ns: int | None = None,
    progress: Progress | None = None,
    crop: Crop | None = None,
) -> FrameSet:
    """Load the frames of a bag with their labels.

    Images are cut to the region in which anything moves, and resized once, by area, into a memory-mapped file in
    `cache_dir`, keyed by the bag's content.

    Args:
        bag_path: The bag.
        size: (width, height) in pixels to resize to, not larger than the camera's.
        cache_dir: Folder for resized images; may be shared by many bags and deleted at any time.
        topics: Topic of the roles "image" and "regime", for bags from elsewhere or with several cameras.
        schedule: The schedule, for bags that do not hold it.
        schedule_start_ns: Time at which the schedule began, for bags without a regime topic.
        progress: Called now and then while images are read.
        crop: What to take of the images, where a network knows a part of them; that in which anything moves when None.

    Raises:
        BagError: The bag lacks a topic or a schedule, holds damaged or changing images, or no labelled frame.
    """
    with open_bag(bag_path, topics=topics, schedule=schedule) as bag:
        schedule = bag.schedule
        entry = cached_images(bag, size, Path(cache_dir), schedule_start_ns is None, progress, crop)
        stamps = entry.stamps_ns
        if schedule_start_ns is None:
            timeline = _timeline(bag, entry.regimes, schedule)
            labels, segments = timeline.labels_at(stamps), timeline.segment_ids_at(stamps)
        else:
            elapsed = stamps - schedule_start_ns
            labels, segments = schedule.labels_at(elapsed), schedule.segment_ids_at(elapsed)
        if not (labels >= 0).any():
            repeated = (
                f" ({entry.duplicates} more images repeat a stamp: does the camera's driver stamp each image with its "
                "time?)"
                if entry.duplicates
                else ""
            )
            raise BagError(
                f"{bag.path}: none of its {len(stamps)} frames is in a regime{repeated}: were camera and commander on "
                "the same clock (use_sim_time), and did the commander run while the bag was recorded?"
            )
        if not np.isfinite(schedule.log_commanded).all():
            raise BagError(
                f"{bag.path}: the schedule's densities are zero somewhere: make one whose floor is higher"
            )
        return FrameSet(
            images=entry.images,
            stamps_ns=stamps,
            labels=labels,
            segments=segments,
            joint_names=tuple(schedule.joint_names),
            level_ids=tuple(schedule.levels.ids),
            grid=schedule.grid,
            log_density=schedule.log_commanded,
            level_label_noise=schedule.label_noise,
            robot=schedule.robot,
            schedule_hash=schedule.hash,
            camera_size=entry.camera_size,
            region=entry.region,
            bag_hash=entry.bag_hash,
            duplicates=entry.duplicates,
            details=BagPixels(bag.path, bag.topic("image"), stamps, entry.camera_size, entry.region),
            home=np.array([joint.home for joint in schedule.joints]),
            half_range=np.array([joint.half_range for joint in schedule.joints]),
        )


def load_labels(bag: Bag, stamps_ns: NDArray[np.int64]) -> NDArray[np.int16]:
    """The level that each joint was commanded at by a bag's regime messages, without its images.

    Args:
        bag: An open bag.
        stamps_ns: int64 [N], times in nanoseconds since the epoch.

    Returns:
        Index of the level, int16 [N, J], -1 for none.

    Raises:
        BagError: The bag lacks a schedule or its regimes, or the two do not agree.
    """
    return load_timeline(bag).labels_at(stamps_ns)


def load_timeline(bag: Bag) -> RegimeTimeline:
    """The labels over time that a bag's regime messages tell, without its images.

    Raises:
        BagError: The bag lacks a schedule or its regimes, or the two do not agree.
    """
    messages = [message.data for message in bag.messages([bag.topic("regime")])]
    return _timeline(bag, messages, bag.schedule)


def split_spans(
    frames: FrameSet,
    *,
    span_s: float = 30.0,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> Split:
    """Assign frames to training, validation and calibration by contiguous spans of time.

    Neighbouring frames of a video are near copies, so splitting frame by frame would validate on the training
    set. A segment whose frames fall into more than one use loses its label in all of them. A recording
    shorter than ten spans is cut into ten shorter ones.

    Args:
        frames: The frames.
        span_s: Length of a span in seconds.
        fractions: Shares of time for training, validation and calibration; they sum to 1.
        seed: Which spans go where.

    Raises:
        TrainingError: The fractions are no shares, or the recording is too short to fill all three uses.
    """
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise TrainingError(f"fractions {fractions} must be positive and sum to 1")
    if span_s <= 0:
        raise TrainingError(f"span of {span_s} s must be positive")
    elapsed = frames.stamps_ns - frames.stamps_ns[0]
    span_ns = min(int(span_s * NANOSECONDS), -(-int(elapsed[-1] + 1) // 10))
    span_of_frame = np.unique(elapsed // max(1, span_ns), return_inverse=True)[1]
    use_of_span = _assign(int(span_of_frame[-1]) + 1, fractions, np.random.default_rng(seed))
    use = use_of_span[span_of_frame]
    labels = np.where(crossing(frames.segments, use), np.int16(-1), frames.labels)
    labelled = (labels >= 0).any(axis=1)
    parts = [np.flatnonzero(labelled & (use == number)) for number in range(3)]
    for name, part in zip(("training", "validation", "calibration"), parts, strict=True):
        if not len(part):
            raise TrainingError(
                f"no labelled frame is left for {name}: {elapsed[-1] / NANOSECONDS:.0f} s of recording are "
                "too short, "
                "record at least some minutes"
            )
    return Split(parts[0], parts[1], parts[2], labels)


def _assign(spans: int, fractions: tuple[float, float, float], rng: np.random.Generator) -> NDArray[np.int64]:
    """Use (0, 1, 2) of each span: counts by largest remainder, at least one each, in random order."""
    exact = np.array(fractions) * spans
    counts = np.floor(exact).astype(np.int64)
    for number in np.argsort(counts - exact, kind="stable")[: spans - counts.sum()]:
        counts[number] += 1
    while counts.min() < 1 and counts.max() > 1:
        counts[np.argmax(counts)] -= 1
        counts[np.argmin(counts)] += 1
    return rng.permutation(np.repeat(np.arange(3), counts))


def crossing(segments: NDArray[np.int32], use: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which frames are in a segment that has frames of more than one use.

    Args:
        segments: Ids of segments, int32 [N, J].
        use: Number of each frame's use, int64 [N], from 0.

    Returns:
        bool [N, J].
    """
    found = np.zeros(segments.shape, dtype=np.bool_)
    for joint in range(segments.shape[1]):
        ids, inverse = np.unique(segments[:, joint], return_inverse=True)
        seen = np.zeros((len(ids), int(use.max()) + 1), dtype=np.bool_)
        seen[inverse, use] = True
        found[:, joint] = (seen.sum(axis=1) > 1)[inverse]
    return found


def _timeline(bag: Bag, messages: Sequence[bytes], schedule: Schedule) -> RegimeTimeline:
    """The labels over time that a bag's regime messages tell."""
    states: list[RegimeState] = []
    for data in messages:
        message = bag.deserialize(data, "diagnostic_msgs/msg/DiagnosticArray")
        try:
            state = regime_from_msg(message, schedule.joint_names)
        except RopesError as error:
            raise BagError(f"{bag.path}: {error}") from error
        if state.schedule_hash != schedule.hash:
            raise BagError(
                f"{bag.path}: a regime of schedule {state.schedule_hash[:12]} was commanded, the schedule given is "
                f"{schedule.hash[:12]}: name the schedule that the commander ran (--schedule FILE)"
            )
        states.append(state)
    try:
        return RegimeTimeline(states, schedule.joint_names, schedule.levels.ids)
    except RopesError as error:
        raise BagError(f"{bag.path}: {error}") from error
