"""Comparing estimates with true joint angles: over a bag, of a running estimator recorded in one, or in simulation.

This is where measured angles (joint_states) are read. Nothing under `learning/` imports this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ropes_ros.bag_images import decode_image
from ropes_ros.bags import Bag, open_bag
from ropes_ros.cdr import header_stamp
from ropes_ros.dataset import load_labels
from ropes_ros.encoder import Encoder
from ropes_ros.errors import BagError, ModelError, RopesError
from ropes_ros.metrics import JointMetrics, TipRotation, auroc, coverage, joint_metrics, tip_rotation_error_deg
from ropes_ros.robot import Robot, bundled_robot
from ropes_ros.tracking_report import TrackingReport, tracking_report
from ropes_ros.truth import load_truth

BATCH = 32
NOVELTY_LIMIT = 1.5
"""Novelty above which the estimator, unless told otherwise, publishes nothing."""


@dataclass(frozen=True)
class Estimates:
    """Estimates with their stamps.

    Attributes:
        stamps_ns: Stamp of each image, int64 [N].
        position: float64 [N, J], rad.
        std: float64 [N, J], rad; empty [0, J] when the source holds none.
        novelty: float64 [N]; empty when the source holds none.
    """

    stamps_ns: NDArray[np.int64]
    position: NDArray[np.float64]
    std: NDArray[np.float64]
    novelty: NDArray[np.float64]

    def select(self, chosen: NDArray[np.bool_]) -> Estimates:
        """Those of some frames; `chosen` is bool [N]."""
        std, novelty = (part[chosen] if len(part) else part for part in (self.std, self.novelty))
        return Estimates(self.stamps_ns[chosen], self.position[chosen], std, novelty)


@dataclass(frozen=True)
class Evaluation:
    """Estimates beside the truth.

    Attributes:
        estimates: What was estimated.
        truth: True joint angles at the same stamps, float64 [N, J], rad.
        metrics: Errors.
        tip_rotation: How far the tip's orientation is off.
        coverage: Share of frames within one and within two std per joint, by "1" and "2"; empty without std.
        uncovered: Frames left out because no joint states were recorded near them.
        in_sample: Whether the model was trained on this very bag.
        tracking: How well the robot reached what was commanded; None where no schedule and its regimes were recorded.
    """

    estimates: Estimates
    truth: NDArray[np.float64]
    metrics: JointMetrics
    tip_rotation: TipRotation
    coverage: dict[str, NDArray[np.float64]]
    uncovered: int = 0
    in_sample: bool = False
    tracking: TrackingReport | None = None


def read_images(bag: Bag) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Stamp in nanoseconds and RGB pixels, uint8 [H, W, 3], of every image of a bag, in recorded order."""
    topic = bag.topic("image")
    compressed = bag.topics[topic].type_name.endswith("CompressedImage")
    for message in bag.messages([topic]):
        yield decode_image(message.data, compressed, f"{bag.path}: {topic}")


def estimate_bag(encoder: Encoder, bag_path: Path, *, topics: Mapping[str, str] | None = None) -> Estimates:
    """Run a model over all images of a bag; joint_states are not read.

    Args:
        encoder: The model.
        bag_path: The bag.
        topics: Topic of the role "image", for bags from elsewhere.

    Raises:
        BagError: No images.
        ModelError: Images of another size than the model's.
    """
    stamps: list[int] = []

    def images(bag: Bag) -> Iterator[NDArray[np.uint8]]:
        for stamp_ns, image in read_images(bag):
            stamps.append(stamp_ns)
            yield image

    with open_bag(bag_path, topics=topics) as bag:
        estimates = estimate_images(encoder, images(bag))
    return replace(estimates, stamps_ns=np.asarray(stamps, dtype=np.int64))


def estimate_images(encoder: Encoder, images: Iterable[NDArray[np.uint8]]) -> Estimates:
    """Run a model over images, each uint8 [H, W, 3]; their numbers stand for stamps.

    Raises:
        ModelError: Images of another size than the model's.
    """
    parts: list[tuple[NDArray[np.float32], ...]] = []
    pending: list[NDArray[np.uint8]] = []

    def flush() -> None:
        if pending:
            parts.append(tuple(encoder.run(np.stack(pending))))
            pending.clear()

    for image in images:
        pending.append(image)
        if len(pending) == BATCH:
            flush()
    flush()
    position, std, novelty = (np.concatenate(column).astype(np.float64) for column in zip(*parts, strict=True))
    return Estimates(np.arange(len(position), dtype=np.int64), position, std, novelty)


def evaluate(
    encoder: Encoder, bag_path: Path, robot: Robot | None = None, *, topics: Mapping[str, str] | None = None
) -> Evaluation:
    """Run a model over a bag and compare it with the bag's joint_states.

    Args:
        encoder: The model.
        bag_path: The bag.
        robot: The model's robot; by default the bundled preset of that name.
        topics: Topics of the roles "image" and "joint_states", for bags from elsewhere.

    Raises:
        BagError: No images in the bag, or no joint_states for most of them.
        ModelError: The model is of another robot.
    """
    arm = bundled_robot(encoder.info.robot) if robot is None else robot
    _check_robot(encoder, arm)
    with open_bag(bag_path, topics=topics) as bag:
        in_sample = bag.content_hash() in encoder.info.bags
    estimates = estimate_bag(encoder, bag_path, topics=topics)
    result = compare(arm, estimates, bag_path, topics=topics)
    return replace(result, in_sample=in_sample, tracking=_tracking(arm, result, bag_path, topics))


def _tracking(
    robot: Robot, result: Evaluation, bag_path: Path, topics: Mapping[str, str] | None
) -> TrackingReport | None:
    """Commanded against reached positions at the frames of a result; None where the bag does not tell the commanded."""
    try:
        with open_bag(bag_path, topics=topics) as bag:
            schedule = bag.schedule
            labels = load_labels(bag, result.estimates.stamps_ns)
    except BagError:  # bags from elsewhere may well hold no regimes: they can be evaluated on all the same
        return None
    return tracking_report(schedule, labels, result.truth) if schedule.joint_names == robot.joint_names else None


def evaluate_sim(
    encoder: Encoder,
    robot: Robot,
    *,
    n: int = 2000,
    seed: int = 0,
    poses: str = "uniform",
    condition: str = "clean",
) -> Evaluation:
    """Run a model over pictures of fresh poses of the built-in simulator.

    Args:
        encoder: The model.
        robot: The model's robot; its preset has a `sim` section.
        n: Number of poses, at least two.
        seed: Seed of poses and surroundings.
        poses: How poses are drawn, see `sim.canonical.fresh_poses`.
        condition: What the surroundings do, see `sim.nuisances.CONDITIONS`.

    Raises:
        ModelError: The model is of another robot or camera.
        RopesError: Poses or condition are unknown, or fewer than two poses are asked for.
        RuntimeSetupError: The simulator cannot run here.
    """
    from ropes_ros.sim.canonical import fresh_pictures, fresh_positions

    _check_simulated(encoder, robot)
    if n < 2:
        raise RopesError(f"{n} poses are too few to evaluate on: take 2 or more")
    truth = fresh_positions(robot, n, seed=seed, poses=poses)
    estimates = estimate_images(encoder, fresh_pictures(robot, truth, seed=seed, condition=condition))
    return _evaluation(robot, estimates, truth)


def novelty_auroc(encoder: Encoder, robot: Robot, *, n: int = 500, seed: int = 0) -> dict[str, float]:
    """How well a model's novelty tells disturbed pictures from clean ones of other poses, by kind of disturbance.

    Args:
        encoder: The model.
        robot: The model's robot; its preset has a `sim` section.
        n: Number of pictures of each kind, and of clean ones.
        seed: Seed of poses and disturbances.

    Returns:
        Area under the ROC curve by kind, see `sim.novelty.novelty_frames`.

    Raises:
        ModelError: The model is of another robot or camera.
        RuntimeSetupError: The simulator cannot run here.
    """
    from ropes_ros.sim.canonical import fresh_pictures, fresh_positions
    from ropes_ros.sim.novelty import KINDS, novelty_frames

    _check_simulated(encoder, robot)
    positions = fresh_positions(robot, n, seed=seed + 1)
    clean = estimate_images(encoder, fresh_pictures(robot, positions, seed=seed + 1)).novelty
    return {
        kind: auroc(clean, estimate_images(encoder, novelty_frames(robot, kind, n, seed)).novelty) for kind in KINDS
    }


def _check_simulated(encoder: Encoder, robot: Robot) -> None:
    """Refuse a model of another robot or of another camera than the canonical sets'."""
    from ropes_ros.sim.canonical import CAMERA_SIZE

    _check_robot(encoder, robot)
    if encoder.info.camera_size != CAMERA_SIZE:
        (width, height), (sim_width, sim_height) = encoder.info.camera_size, CAMERA_SIZE
        raise ModelError(
            f"{encoder.path}: takes images of {width}x{height}, the simulator's are {sim_width}x{sim_height}; "
            "evaluate it on a bag"
        )


def _check_robot(encoder: Encoder, arm: Robot) -> None:
    """Refuse a robot other than the model's."""
    if (arm.name, arm.joint_names) != (encoder.info.robot, encoder.info.joint_names):
        raise ModelError(
            f"{encoder.path}: was trained for robot {encoder.info.robot!r} with joints "
            f"{', '.join(encoder.info.joint_names)}, not for {arm.name!r} with {', '.join(arm.joint_names)}; "
            "give --robot the preset of the model's robot"
        )


def compare(
    robot: Robot, estimates: Estimates, bag_path: Path, *, topics: Mapping[str, str] | None = None
) -> Evaluation:
    """Compare estimates with a bag's joint_states at the estimates' stamps, as far as there are any."""
    truth = load_truth(bag_path, estimates.stamps_ns, joint_names=robot.joint_names, topics=topics)
    covered = np.asarray(np.isfinite(truth).all(axis=1))
    estimates, truth = estimates.select(covered), truth[covered]
    return replace(_evaluation(robot, estimates, truth), uncovered=int((~covered).sum()))


def _evaluation(robot: Robot, estimates: Estimates, truth: NDArray[np.float64]) -> Evaluation:
    """Estimates beside the truth [N, J] in rad."""
    within = {
        str(sigmas): coverage(estimates.position, estimates.std, truth, float(sigmas))
        for sigmas in (1, 2)
        if len(estimates.std)
    }
    return Evaluation(
        estimates,
        truth,
        joint_metrics(robot, estimates.position, truth),
        tip_rotation_error_deg(robot, estimates.position, truth),
        within,
    )


def read_published(bag_path: Path, topic: str, joint_names: tuple[str, ...]) -> tuple[Estimates, NDArray[np.float64]]:
    """Estimates that a running estimator published as JointState and a recorder put into a bag.

    Args:
        bag_path: The bag.
        topic: Topic of the estimator's joint states.
        joint_names: Joint order of the result.

    Returns:
        The estimates, and for each the time in ms from its stamp to the recorder's receipt (an upper bound of the
        latency until publication), float64 [N].

    Raises:
        BagError: No such topic or no message on it.
    """
    stamps, positions, delays = [], [], []
    with open_bag(bag_path, topics={"estimate": topic}) as bag:
        name = bag.topic("estimate")
        for message in bag.messages([name]):
            state = bag.deserialize(message.data, bag.topics[name].type_name)
            by_name = dict(zip(state.name, state.position, strict=True))
            if not set(joint_names) <= set(by_name):
                raise BagError(f"{bag_path}: {name} lacks joint {sorted(set(joint_names) - set(by_name))[0]!r}")
            stamp_ns = header_stamp(message.data)
            stamps.append(stamp_ns)
            positions.append([by_name[joint] for joint in joint_names])
            delays.append((message.log_time_ns - stamp_ns) * 1e-6)
    nothing = np.empty((0, len(joint_names)))
    estimates = Estimates(np.asarray(stamps, dtype=np.int64), np.asarray(positions), nothing, np.empty(0))
    return estimates, np.asarray(delays)
