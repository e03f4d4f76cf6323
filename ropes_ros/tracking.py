"""Estimates over time: a Kalman filter per joint, which knows that the encoder's errors are alike from frame to frame.

An encoder's error depends on the pose, so that consecutive frames err alike: averaging them gains little, and a filter
that takes them as independent promises too much. Each joint's state is therefore position, velocity and the error that
the encoder makes at this pose,

    measured = position + error + white,    variance(error) + variance(white) = std²,

the augmented state of coloured measurement noise (Gelb 1974, sec. 4.5; Bar-Shalom, Li and Kirubarajan 2001, sec. 8.2).
How much of std² is white is measured from the scatter of the measurements themselves, without labels.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ropes_ros.robot import Robot
from ropes_ros.units import NANOSECONDS

Array = NDArray[np.float64]

FORGET_NS = 2 * NANOSECONDS
"""After such a silence the past says nothing of a joint any more, and the filter starts anew."""
HISTORY_NS = NANOSECONDS // 2
"""By how much a measurement may be older than the newest: the filter is rewound that far."""
CORRELATION_LENGTH = 0.15
"""Way in half ranges, root mean square over joints, over which the encoder's error falls to 1/e of its correlation. It
is the width of the bumps that levels are by default: finer than that no label tells poses apart. Simulated angles were
looked at and agree (0.15 to 0.17)."""
WHITE_SHARE, WHITE_FRAMES, WHITE_MEMORY = 0.1, 5.0, 300.0
"""Share of std² that is taken to be white at first, the number of frames that this counts for, and the number of frames
over which the measured share is averaged."""
LEAST_WHITE, MOST_WHITE = 0.01, 0.99
"""Bounds of the share that is taken to be white: without any, two equal frames would tell a velocity exactly."""
SCATTER_VARIANCE = 4.6
"""Variance of the mean squared scatter of n frames of white noise, times n and over its square: 2 for each normal
number's square, times 2.3 because third differences of consecutive frames overlap."""
SCATTER_NS = 3 * NANOSECONDS // 8
"""Longest span of four frames that tell the white share; over a longer one motion hides it."""
GATE = 28.4
"""Normalised innovation squared above which a measurement is an outlier: chi-square with 1 degree of freedom, false
alarm once in 10 million."""
DOUBTED = 9.0
"""Normalised innovation squared from which a measurement's variance is enlarged, so that it moves the estimate no
further than one of this size would (Huber, Annals of Mathematical Statistics 35(1), 1964); not where it follows
outliers, which it then confirms."""
BELIEVE_NS = 3 * NANOSECONDS // 10
"""A joint whose measurements have all been outliers for so long has jumped: it starts anew at the measurement."""
COMMANDED_SHARE = 0.1
"""Share of the process noise that is left, for motion that no command explains, while commands are known."""
UNEXECUTED_SHARE = 0.5
"""Share of its own square that is the variance of a commanded change of velocity."""
STEADY = 0.1
"""Relative change of the encoder error's variance (about twice that of the std) below which it is taken to be the same:
an arm that stands still has a std that trembles a little."""


class TrackedState(NamedTuple):
    """What is known of J joints at one time.

    Attributes:
        stamp_ns: The time, in ns.
        position: Angles, float64 [J], rad, within the joint limits; of continuous joints in [lower, upper).
        velocity: float64 [J], rad/s.
        covariance: Of each joint's position and velocity, float64 [J, 2, 2]; what encoder errors have in common over
            frames is in it.
    """

    stamp_ns: int
    position: Array
    velocity: Array
    covariance: Array

    @property
    def position_std(self) -> Array:
        """Standard deviations of the positions, float64 [J], rad."""
        return np.sqrt(self.covariance[:, 0, 0])

    @property
    def velocity_std(self) -> Array:
        """Standard deviations of the velocities, float64 [J], rad/s."""
        return np.sqrt(self.covariance[:, 1, 1])


class Measured(NamedTuple):
    """What became of a measurement.

    Attributes:
        used: bool [J]; False where it was an outlier, which left the joint's estimate as predicted.
        nis: Innovation squared over its variance, float64 [J]; 0 where a joint started.
        late: Whether it was older than the newest measurement.
    """

    used: NDArray[np.bool_]
    nis: Array
    late: bool


class _Input(NamedTuple):
    """One measurement: time in ns, angles [J] in rad, their std [J], commanded velocities [J] in rad/s if known."""

    stamp_ns: int
    position: Array
    std: Array
    command: Array | None


class _Belief(NamedTuple):
    """All that the filter remembers after a measurement; its arrays are never changed.

    Attributes:
        stamp_ns: Of the measurement.
        mean: Position (not wrapped), velocity and encoder error, [3, J].
        covariance: Theirs, [3, 3, J].
        error_variance: Of the encoder error where nothing but std is known, [J].
        command: Commanded velocities at the measurement, [J], or None.
        command_change: By which they had changed since the measurement before, [J].
        outlier_since_ns: Stamp of the first of the outliers that the last measurements were; -1 for none, int64 [J].
        recent: Stamps, angles and std of the last measurements, three at most.
        white: Measured share of std² that is white, [J].
        frames: Number of frames that `white` is the mean of, [J].
    """

    stamp_ns: int
    mean: Array
    covariance: Array
    error_variance: Array
    command: Array | None
    command_change: Array
    outlier_since_ns: NDArray[np.int64]
    recent: tuple[tuple[int, Array, Array], ...]
    white: Array
    frames: Array


class JointTracker:
    """Position and velocity of J independent joints from an encoder's estimates.

    **Motion.** Velocity changes by white acceleration of intensity q = a v / 10 (continuous white noise acceleration;
    Bar-Shalom, Li and Kirubarajan 2001, sec. 6.2.2, which unlike the piecewise constant one means the same at every
    frame rate), from the joint's limits a of acceleration and v of velocity alone. Accelerations are distributed as
    Singer (1970) has them: anything up to a for three tenths of the time, which is about how long a swept joint turns,
    and none otherwise; their variance is a² / 10, and one lasts as long as it takes to reach v, v / a. Where commanded
    velocities are known, their changes are changes of the velocity. A tenth of q is left, and of each commanded change,
    now and in the frame before, half the square: the robot may lag or may not do it at all.

    **Errors.** The encoder's error is a first-order Gauss-Markov process along the way that the arm makes, not along
    time: an arm that stands still keeps its error, however long it is looked at. Where the stated std changes, the
    errors before and after have the smaller one's variance in common.

    **White share.** The third divided difference of four frames' angles vanishes for motion of constant
    acceleration. Its square, scaled such that white noise of the stated std gives 1, less what the motion's noise adds,
    is averaged; an upper bound of one standard error is used.

    **Outliers.** A measurement whose normalised innovation squared exceeds `DOUBTED` moves the estimate no further than
    one with that; a joint whose normalised innovation squared exceeds `GATE` is predicted only, until that has lasted
    for `BELIEVE_NS`.

    Args:
        robot: Gives the limits and which joints are continuous.
    """

    def __init__(self, robot: Robot) -> None:
        self._intensity = robot.max_acceleration * robot.max_velocity / 10.0
        self._velocity_variance = robot.max_velocity**2 / 3.0
        self._lower, self._upper, self._half_range = robot.lower, robot.upper, robot.half_range
        self._continuous = robot.continuous
        self._any_continuous = bool(self._continuous.any())
        self._joints = len(robot.joints)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._belief: _Belief | None = None
        self._history: deque[tuple[_Input, _Belief | None]] = deque()

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the newest measurement in ns; None before the first."""
        return None if self._belief is None else self._belief.stamp_ns

    @property
    def state(self) -> TrackedState:
        """The estimate at the newest measurement.

        Raises:
            ValueError: There was none yet.
        """
        return self._said(self._known())

    def predict(self, stamp_ns: int) -> TrackedState:
        """The estimate at a later time; the filter stays as it is.

        Raises:
            ValueError: There was no measurement yet, or the time is before the newest.
        """
        belief = self._known()
        if stamp_ns < belief.stamp_ns:
            raise ValueError(
                f"prediction for {stamp_ns} ns, which is before the newest measurement, {belief.stamp_ns} ns"
            )
        mean, covariance = self._predicted(belief, stamp_ns, None, belief.error_variance)
        return self._said(belief._replace(stamp_ns=stamp_ns, mean=mean, covariance=covariance))

    def can_replay(self, stamp_ns: int) -> bool:
        """Whether `update` takes a measurement that is older than the newest."""
        newest = self.newest_ns
        if newest is None or not newest - HISTORY_NS <= stamp_ns < newest:
            return False
        return all(given.stamp_ns != stamp_ns for given, _ in self._history)

    def update(
        self,
        stamp_ns: int,
        position: NDArray[np.floating],
        std: NDArray[np.floating],
        commanded_velocity: NDArray[np.floating] | None = None,
    ) -> Measured:
        """Take in one measurement; one that is late, as if it had come in order.

        Args:
            stamp_ns: Time of the image, nanoseconds.
            position: float [J], rad.
            std: float [J], rad, standard deviation of the measurement.
            commanded_velocity: float [J], rad/s, at that time, where commands are known.

        Raises:
            ValueError: The stamp is one that was taken already, or by more than `HISTORY_NS` older than the newest; or
                a number is not finite, or a std not above 0.
        """
        given = self._checked(stamp_ns, position, std, commanded_velocity)
        newest = self.newest_ns
        late = newest is not None and stamp_ns <= newest
        later: list[_Input] = []
        if late:
            if not self.can_replay(stamp_ns):
                raise ValueError(
                    f"a measurement of {stamp_ns} ns: its stamp must be new, and no more than {HISTORY_NS} ns older "
                    f"than the newest, {newest} ns"
                )
            while self._history and self._history[-1][0].stamp_ns > stamp_ns:
                after, self._belief = self._history.pop()
                later.append(after)
        measured = self._take(given)
        while later:
            self._take(later.pop())
        return measured._replace(late=late)

    def _take(self, given: _Input) -> Measured:
        """Take in a measurement that is newer than all before."""
        belief = self._belief
        self._history.append((given, belief))
        while self._history[0][0].stamp_ns < given.stamp_ns - HISTORY_NS:
            self._history.popleft()
        if belief is None or given.stamp_ns > belief.stamp_ns + FORGET_NS:
            self._belief = self._fresh(given)
            return Measured(np.ones(self._joints, dtype=np.bool_), np.zeros(self._joints), False)
        self._belief, measured = self._updated(belief, given)
        return measured

    def _checked(
        self,
        stamp_ns: int,
        position: NDArray[np.floating],
        std: NDArray[np.floating],
        command: NDArray[np.floating] | None,
    ) -> _Input:
        values = []
        for name, value in (("position", position), ("std", std), ("commanded velocity", command)):
            array = None if value is None else np.array(value, dtype=np.float64)
            if array is not None and array.shape != (self._joints,):
                raise ValueError(f"{name} has the shape {array.shape}: {self._joints} joints are expected")
            if array is not None and not np.isfinite(array).all():
                raise ValueError(f"{name} is not finite in a measurement of {stamp_ns} ns: {array.tolist()}")
            values.append(array)
        measured, deviation, commanded = values
        assert measured is not None and deviation is not None
        if not (deviation > 0.0).all():
            raise ValueError(f"std must be above 0 in a measurement of {stamp_ns} ns: {deviation.tolist()}")
        return _Input(stamp_ns, measured, deviation, commanded)

    def _fresh(self, given: _Input) -> _Belief:
        """What one measurement tells."""
        white = np.full(self._joints, WHITE_SHARE)
        error_variance = (1.0 - white) * given.std**2
        mean, covariance = self._started(given.position, given.std, error_variance)
        return _Belief(
            stamp_ns=given.stamp_ns,
            mean=mean,
            covariance=covariance,
            error_variance=error_variance,
            command=given.command,
            command_change=np.zeros(self._joints),
            outlier_since_ns=np.full(self._joints, -1, dtype=np.int64),
            recent=((given.stamp_ns, given.position, given.std),),
            white=white,
            frames=np.full(self._joints, WHITE_FRAMES),
        )

    def _started(self, position: Array, std: Array, error_variance: Array) -> tuple[Array, Array]:
        """Mean [3, J] and covariance [3, 3, J] from one measurement."""
        mean = np.zeros((3, self._joints))
        mean[0] = position
        covariance = np.zeros((3, 3, self._joints))
        covariance[0, 0] = std**2
        covariance[1, 1] = self._velocity_variance
        covariance[2, 2] = error_variance
        covariance[0, 2] = covariance[2, 0] = -error_variance
        return mean, covariance

    def _predicted(
        self, belief: _Belief, stamp_ns: int, change: Array | None, error_variance: Array
    ) -> tuple[Array, Array]:
        """Mean [3, J] and covariance [3, 3, J] at a later time, with the commanded change of velocity where known."""
        seconds = (stamp_ns - belief.stamp_ns) / NANOSECONDS
        mean, covariance = belief.mean.copy(), belief.covariance.copy()
        kept = self._way_kept(belief, seconds) * np.minimum(1.0, error_variance / belief.error_variance)
        for array in (mean, covariance, covariance.swapaxes(0, 1)):
            array[0] += seconds * array[1]
            array[2] *= kept
        if change is None:
            jump = self._intensity * seconds
        else:
            mean[0] += 0.5 * seconds * change
            mean[1] += change
            unsure = UNEXECUTED_SHARE * np.maximum(change**2, belief.command_change**2)
            jump = COMMANDED_SHARE * self._intensity * seconds + unsure
        covariance[0, 0] += jump * (seconds**2 / 3.0)
        covariance[0, 1] += jump * (0.5 * seconds)
        covariance[1, 0] += jump * (0.5 * seconds)
        covariance[1, 1] += jump
        covariance[2, 2] += error_variance - kept**2 * belief.error_variance
        return mean, covariance

    def _way_kept(self, belief: _Belief, seconds: float) -> float:
        """Correlation of the encoder's errors now and later; the velocities' uncertainty is no way."""
        squares = (belief.mean[1] ** 2 - belief.covariance[1, 1]) / self._half_range**2
        return math.exp(-seconds * math.sqrt(max(0.0, float(squares.mean()))) / CORRELATION_LENGTH)

    def _updated(self, belief: _Belief, given: _Input) -> tuple[_Belief, Measured]:
        variance = given.std**2
        white = np.clip(belief.white * (1.0 + np.sqrt(SCATTER_VARIANCE / belief.frames)), LEAST_WHITE, MOST_WHITE)
        error_variance = (1.0 - white) * variance
        trembles = np.abs(error_variance / belief.error_variance - 1.0) <= STEADY
        error_variance = np.where(trembles, belief.error_variance, error_variance)
        change = None
        if given.command is not None and belief.command is not None:
            change = given.command - belief.command
        mean, covariance = self._predicted(belief, given.stamp_ns, change, error_variance)
        innovation = given.position - mean[0] - mean[2]
        if self._any_continuous:
            turns = np.where(self._continuous, np.ceil(innovation / (2.0 * math.pi) - 0.5), 0.0)
            innovation = innovation - 2.0 * math.pi * turns
        measured = mean[0] + mean[2] + innovation  # the angle in the mean's turn
        carried = covariance[0] + covariance[2]
        spread = carried[0] + carried[2] + white * variance
        nis = innovation**2 / spread
        used = nis <= GATE
        spread = spread * np.where(belief.outlier_since_ns < 0, np.maximum(1.0, nis / DOUBTED), 1.0)
        since = np.where(used, -1, np.where(belief.outlier_since_ns < 0, given.stamp_ns, belief.outlier_since_ns))
        gain = np.where(used, carried / spread, 0.0)
        mean += gain * innovation
        covariance -= gain[:, None] * carried[None]
        covariance = 0.5 * (covariance + covariance.swapaxes(0, 1))  # rounding must not add up
        jumped = ~used & (given.stamp_ns - since >= BELIEVE_NS)
        if jumped.any():
            started = self._started(measured, given.std, error_variance)
            mean, covariance = np.where(jumped, started[0], mean), np.where(jumped, started[1], covariance)
            since, nis, used = np.where(jumped, -1, since), np.where(jumped, 0.0, nis), used | jumped
        frames = (*belief.recent, (given.stamp_ns, np.where(used, measured, np.nan), given.std))
        share, count = self._white(belief, frames)
        after = _Belief(
            stamp_ns=given.stamp_ns,
            mean=mean,
            covariance=covariance,
            error_variance=error_variance,
            command=given.command,
            command_change=np.zeros(self._joints) if change is None else change,
            outlier_since_ns=since,
            recent=frames[-3:],
            white=share,
            frames=count,
        )
        return after, Measured(used, nis, False)

    def _white(self, belief: _Belief, frames: tuple[tuple[int, Array, Array], ...]) -> tuple[Array, Array]:
        """The white share and its number of frames, with the scatter of the last four frames taken in."""
        if len(frames) < 4 or frames[-1][0] - frames[0][0] > SCATTER_NS:
            return belief.white, belief.frames
        times = [(frame[0] - frames[0][0]) / NANOSECONDS for frame in frames]
        weights = np.array([1.0 / math.prod(times[i] - times[k] for k in range(4) if k != i) for i in range(4)])
        weights /= np.linalg.norm(weights)
        scatter = weights @ np.stack([frame[1] for frame in frames])
        stated = weights**2 @ np.stack([frame[2] for frame in frames]) ** 2
        # Of white acceleration of the model's intensity, at even steps, a third difference of unit norm has 1/20.
        moved = self._intensity * (times[-1] / 3.0) ** 3 / 20.0
        whole = np.isfinite(scatter)
        count = np.where(whole, np.minimum(belief.frames + 1.0, WHITE_MEMORY), belief.frames)
        news = np.where(whole, np.minimum((scatter**2 - moved) / stated, DOUBTED) - belief.white, 0.0)
        return belief.white + news / count, count

    def _known(self) -> _Belief:
        if self._belief is None:
            raise ValueError("nothing is known of the joints before the first measurement: call update")
        return self._belief

    def _said(self, belief: _Belief) -> TrackedState:
        position = belief.mean[0]
        if self._any_continuous:
            turn: Any = np.floor((position - self._lower) / (2.0 * math.pi))
            position = np.where(self._continuous, position - 2.0 * math.pi * turn, position)
            position = np.where(self._continuous & (position >= self._upper), self._lower, position)  # by rounding
        return TrackedState(
            belief.stamp_ns,
            np.clip(position, self._lower, self._upper),
            belief.mean[1].copy(),
            np.moveaxis(belief.covariance[:2, :2], 2, 0).copy(),
        )
