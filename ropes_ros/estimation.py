"""From frames to what may be published: order in time, novelty, filter, and what state all that is in. Knows no ROS.

Every frame that comes is counted under exactly one outcome. What is published belongs to a picture that is new, of a
known kind and in order, or is a prediction that says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ropes_ros.encoder import Encoder, Estimate
from ropes_ros.errors import RopesError
from ropes_ros.robot import Robot
from ropes_ros.tracking import JointTracker, TrackedState
from ropes_ros.units import NANOSECONDS

JUMP_NS = NANOSECONDS
"""Stamps that differ from the last by this much more than time has passed, or go back by it: time itself jumped."""
RECENT_S = 2.0
"""How long a trouble that has passed keeps the state DEGRADED: two periods of diagnostics, so that they show it."""
OVERDUE = 1.5
"""Periods of the camera after which a frame is taken to be missing."""
SPARSE = 997
"""Every so-many-th byte is compared first when two pictures are: nearly all that differ do so there."""
PERIOD_WEIGHT = 0.1

LATE_FRAMES = ("drop", "replay")


class State(str, Enum):
    """What a subscriber may think of the newest estimates."""

    OK = "OK"
    DEGRADED = "DEGRADED"
    NOVEL = "NOVEL"
    STALE = "STALE"
    STOPPED = "STOPPED"


@dataclass(frozen=True)
class Settings:
    """When what is published.

    Attributes:
        novelty_limit: Novelty above which a picture is NOVEL, and nothing is published.
        novelty_release: Novelty at or below which pictures are known again.
        stale_after: Seconds without a usable frame until the state is STALE.
        old_after: Age of a frame in seconds from which the state is DEGRADED.
        future_tolerance: Seconds that a stamp may lie ahead of the clock.
        late_frames: What becomes of frames older than the newest: "drop", or "replay" into the filter.
        predict_for: Seconds without a frame for which predictions are published.
        drop_identical: Whether a picture that equals the one before in every byte is no new picture.
    """

    novelty_limit: float = 1.5
    novelty_release: float = 1.2
    stale_after: float = 0.5
    old_after: float = 1.0
    future_tolerance: float = 0.5
    late_frames: str = "drop"
    predict_for: float = 0.0
    drop_identical: bool = True


@dataclass
class Counters:
    """What happened to the frames since activation: all of `received`, but at most two that are at work, are in one
    of `published` to `replayed`; `clock_jumps`, `outliers` (angles of single joints) and `predicted` go beside it."""

    received: int = 0
    published: int = 0
    novel: int = 0
    skipped: int = 0
    rejected: int = 0
    out_of_order: int = 0
    from_future: int = 0
    identical: int = 0
    replayed: int = 0
    clock_jumps: int = 0
    outliers: int = 0
    predicted: int = 0


OUTCOMES = ("published", "novel", "skipped", "rejected", "out_of_order", "from_future", "identical", "replayed")
"""The counters that add up to `received`."""


class Output(NamedTuple):
    """What may be published.

    Attributes:
        tracked: The filter's state, at the frame's stamp, or at a later time where it is a prediction.
        estimate: The encoder's, of one frame; None where it is a prediction.
    """

    tracked: TrackedState
    estimate: Estimate | None


class Estimation:
    """The estimator without its topics. One thread calls `frame` and `predict`; others may call the rest.

    Args:
        robot: The robot.
        encoder: The model; may be replaced at any time (`encoder`), from the next frame on.
        settings: May be replaced at any time (`settings`).
        source: Where frames come from, for messages.
        commanded_velocity: Joint velocities [J] in rad/s commanded at a time in ns, None where unknown.
        steady: Seconds of a clock that never jumps.
    """

    def __init__(
        self,
        robot: Robot,
        encoder: Encoder,
        settings: Settings,
        *,
        source: str = "the camera's topic",
        commanded_velocity: Callable[[int], NDArray[np.float64] | None] = lambda stamp_ns: None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.encoder, self.settings = encoder, settings
        self._source = source
        self.counters = Counters()
        self.last: Estimate | None = None
        self._used = encoder
        self._tracker = JointTracker(robot)
        self._joint_names: Sequence[str] = robot.joint_names
        self._commanded_velocity = commanded_velocity
        self._steady = steady
        self._before: NDArray[np.uint8] | None = None
        self._newest_ns: int | None = None  # stamp of the newest frame in order
        self._arrived_ns = 0  # the node's clock then
        self._arrived_s = self._published_s = self._heard_s = steady()
        self._said_ns: int | None = None  # stamp of the newest output
        self._period_ns = 0.0
        self._novel = False
        self._refused: str | None = None  # why the newest frame is not used
        self._asked_s: float | None = None  # since when a frame waits for its end
        self._trouble: tuple[float, str] | None = None

    def heard(self, replaced: bool) -> None:
        """Count a frame that has arrived, and one that it took the place of before anyone looked at it."""
        self.counters.received += 1
        self.counters.skipped += replaced
        self._heard_s = self._steady()
        if self._asked_s is None:
            self._asked_s = self._heard_s

    def frame(self, stamp_ns: int, now_ns: int, data: Any, read: Callable[[], NDArray[np.uint8]]) -> Output | None:
        """Work on a frame.

        Args:
            stamp_ns: Its stamp.
            now_ns: The node's clock.
            data: Its bytes as they came, any object with a byte buffer; kept until the next frame.
            read: Gives its pixels, uint8 [H, W, 3] RGB; what it raises of RopesError is the reason of a refusal.

        Returns:
            What is to be published; None where nothing is.

        Raises:
            Exception: What the encoder raised that is no RopesError; the frame is counted as rejected.
        """
        if self.encoder is not self._used:  # another model
            self._used = self.encoder
            self._tracker.reset()
        try:
            late = self._placed(stamp_ns, now_ns)
            if late is None:
                return None
            if self._is_identical(data):
                self.counters.identical += 1
                if not self._novel:  # the same picture is as novel as before
                    self._refuse("FROZEN: the picture is the one before in every byte; is the camera stuck?")
                return None
            estimate = self._used.run(read())
            self.last = estimate
            if not (np.isfinite(estimate.position) & np.isfinite(estimate.std) & (estimate.std > 0.0)).all():
                raise RopesError("the model's estimate is not a number; export the model again, or take another")
            if self._is_novel(float(estimate.novelty[0])):
                self.counters.novel += 1
                self._refused = None
                return None
            return self._filtered(stamp_ns, now_ns, estimate, late)
        except RopesError as error:
            self.reject(str(error))
        except Exception as error:
            self.reject(f"the estimate failed: {type(error).__name__}: {' '.join(str(error).split())}")
            raise
        finally:
            self._asked_s = None
        return None

    def predict(self, now_ns: int) -> Output | None:
        """A prediction, where a frame is overdue and `predict_for` allows it."""
        if self.settings.predict_for <= 0.0 or self._newest_ns is None or self._novel or not self._period_ns:
            return None
        elapsed_ns = now_ns - self._arrived_ns
        if not OVERDUE * self._period_ns < elapsed_ns <= self.settings.predict_for * NANOSECONDS:
            return None
        stamp_ns, used_ns = self._newest_ns + elapsed_ns, self._tracker.newest_ns
        if used_ns is None or (self._said_ns is not None and stamp_ns <= self._said_ns):
            return None
        if stamp_ns - used_ns > self.settings.predict_for * NANOSECONDS:  # frames came since, but none to be used
            return None
        self.counters.predicted += 1
        self._said_ns = stamp_ns
        self.degrade(f"PREDICTED: no frame for {elapsed_ns / NANOSECONDS:.2f} s")
        return Output(self._tracker.predict(stamp_ns), None)

    @property
    def camera_size(self) -> tuple[int, int]:
        """(width, height) of the pictures that the model takes which `frame` is at work with."""
        return self._used.info.camera_size

    @property
    def patience_s(self) -> float | None:
        """How long to wait for a frame before `predict` is asked; None where it need not be."""
        if self.settings.predict_for <= 0.0 or not self._period_ns:
            return None
        return self._period_ns / NANOSECONDS

    def reject(self, problem: str) -> None:
        """Count a frame as rejected."""
        self.counters.rejected += 1
        self._refuse(f"REJECTED: {problem}")

    def state(self) -> tuple[State, str]:
        """The state and its reason, now."""
        now = self._steady()
        unheard, unpublished = now - self._heard_s, now - self._published_s
        trouble = self._trouble
        if unheard > self.settings.stale_after:
            return State.STALE, f"no frame on {self._source} for {unheard:.1f} s"
        if self._novel and self._refused is None:
            return State.NOVEL, "the image is unlike the training frames; nothing is published"
        asked, refused = self._asked_s, self._refused
        if asked is not None and now - asked > self.settings.stale_after:
            return State.STALE, f"no estimate for {unpublished:.1f} s: the model is at work on one frame"
        if unpublished > self.settings.stale_after and refused is not None:
            return State.STALE, f"no usable frame on {self._source} for {unpublished:.1f} s; {refused}"
        if trouble is not None and now - trouble[0] < RECENT_S:
            return State.DEGRADED, trouble[1]
        return State.OK, "estimates are published"

    def degrade(self, reason: str) -> None:
        """Say that something is wrong with what is published, or why nothing is."""
        self._trouble = self._steady(), reason

    def _refuse(self, reason: str) -> None:
        self._refused = reason
        self.degrade(reason)

    def _placed(self, stamp_ns: int, now_ns: int) -> bool | None:
        """Whether a frame is late; None where it is not to be used. Starts anew where time jumped."""
        if stamp_ns <= 0:
            self.counters.out_of_order += 1
            self._refuse("DROPPED: images are not stamped; the camera's driver must stamp each with its time")
            return None
        ahead_s = (stamp_ns - now_ns) / NANOSECONDS
        if ahead_s > self.settings.future_tolerance:
            self.counters.from_future += 1
            advice = "synchronise the clocks, or set use_sim_time"
            self._refuse(f"DROPPED: stamps lie {ahead_s:.1f} s ahead of this node's clock; {advice}")
            return None
        arrived_s = self._steady()
        if self._newest_ns is not None:
            step_ns = stamp_ns - self._newest_ns
            passed_ns = (arrived_s - self._arrived_s) * NANOSECONDS
            if step_ns < -JUMP_NS or step_ns > passed_ns + JUMP_NS:
                self.counters.clock_jumps += 1
                self.degrade(f"JUMPED: stamps jumped by {step_ns / NANOSECONDS:+.1f} s; the filter starts anew")
                self._restart()
            elif step_ns <= 0:
                if self.settings.late_frames == "replay" and self._tracker.can_replay(stamp_ns):
                    return True
                self.counters.out_of_order += 1
                self._refuse(
                    f"DROPPED: stamps do not increase (now {stamp_ns / NANOSECONDS:.3f} s); the camera's driver must "
                    "stamp each image with its time"
                )
                return None
            else:
                weight = PERIOD_WEIGHT if self._period_ns else 1.0
                self._period_ns += weight * (step_ns - self._period_ns)
        self._newest_ns, self._arrived_ns, self._arrived_s = stamp_ns, now_ns, arrived_s
        return False

    def _restart(self) -> None:
        self._tracker.reset()
        self._newest_ns = self._said_ns = None
        self._period_ns = 0.0

    def _is_identical(self, data: Any) -> bool:
        """Whether a frame has the bytes of the one before."""
        if not self.settings.drop_identical or not len(data):
            return False
        before, self._before = self._before, np.frombuffer(data, dtype=np.uint8)
        if before is None or len(before) != len(self._before):
            return False
        sparse = np.array_equal(before[::SPARSE], self._before[::SPARSE])
        return sparse and np.array_equal(before, self._before)

    def _is_novel(self, novelty: float) -> bool:
        """Whether a frame is novel, with hysteresis; a novelty that is not a number is."""
        limit = self.settings.novelty_limit
        self._novel = not novelty <= (min(limit, self.settings.novelty_release) if self._novel else limit)
        return self._novel

    def _filtered(self, stamp_ns: int, now_ns: int, estimate: Estimate, late: bool) -> Output | None:
        measured = self._tracker.update(
            stamp_ns, estimate.position[0], estimate.std[0], self._commanded_velocity(stamp_ns)
        )
        if not measured.used.all():
            self.counters.outliers += int(np.count_nonzero(~measured.used))
            names = ", ".join(name for name, used in zip(self._joint_names, measured.used, strict=True) if not used)
            self.degrade(f"OUTLIER: the angle of {names} jumped and was not believed")
        self._published_s, self._refused = self._steady(), None
        if late or (self._said_ns is not None and stamp_ns <= self._said_ns):
            self.counters.replayed += 1
            return None
        self._said_ns = stamp_ns
        self.counters.published += 1
        age_s = (now_ns - stamp_ns) / NANOSECONDS
        if age_s > self.settings.old_after:
            self.degrade(
                f"OLD: stamps lie {age_s:.1f} s behind this node's clock; the camera or the network is slow, or the "
                "clocks differ: synchronise them, or set use_sim_time"
            )
        return Output(self._tracker.state, estimate)
