"""Filtering of the encoder's estimates over time: one constant-velocity Kalman filter per joint."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ropes_ros.robot import Robot

CORRELATION_FRAMES = 4.0
"""Frames over which the encoder's error stays alike: consecutive images err alike, so that a filter which took them
as independent would promise too much. The measurement variance is multiplied by it."""
FORGET_NS = 2_000_000_000
"""After such a silence the past says nothing of a joint any more, and the filter starts anew."""


class JointTracker:
    """Position and velocity of J independent joints from noisy positions.

    Acceleration is piecewise constant and white with the joint's maximum acceleration as its standard deviation, the
    upper end of what Bar-Shalom, Li and Kirubarajan (2001, sec. 6.3.2) recommend: a commanded robot uses all of it
    where it turns. The state starts anew at the first measurement, after `reset` and after a silence of `FORGET_NS`.

    Args:
        robot: Gives acceleration limits and position limits.
    """

    def __init__(self, robot: Robot) -> None:
        self._acceleration = robot.max_acceleration**2
        self._velocity_variance = robot.max_velocity**2 / 3.0
        self._lower, self._upper = robot.lower, robot.upper
        self._joints = len(robot.joints)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._stamp_ns: int | None = None
        self._state: NDArray[np.float64] = np.zeros((2, self._joints))
        self._covariance: NDArray[np.float64] = np.zeros((2, 2, self._joints))

    def update(self, stamp_ns: int, position: NDArray[np.floating], std: NDArray[np.floating]) -> None:
        """Take in one measurement.

        Args:
            stamp_ns: Time of the image, nanoseconds; must be later than the last.
            position: float [J], rad.
            std: float [J], rad, standard deviation of the measurement.

        Raises:
            ValueError: The stamp is not later than the last one.
        """
        noise = CORRELATION_FRAMES * np.asarray(std, dtype=np.float64) ** 2
        if self._stamp_ns is None or stamp_ns > self._stamp_ns + FORGET_NS:
            self._state = np.stack([np.asarray(position, dtype=np.float64), np.zeros(self._joints)])
            zero = np.zeros(self._joints)
            self._covariance = np.stack([np.stack([noise, zero]), np.stack([zero, self._velocity_variance])])
        else:
            self._predict((stamp_ns - self._stamp_ns) * 1e-9)
            gain = self._covariance[:, 0] / (self._covariance[0, 0] + noise)
            self._state = self._state + gain * (position - self._state[0])
            self._covariance = self._covariance - gain[:, None] * self._covariance[None, 0]
        self._stamp_ns = stamp_ns

    def _predict(self, seconds: float) -> None:
        if seconds <= 0.0:
            raise ValueError(f"a measurement must be later than the last, not by {seconds} s")
        (pp, pv), (_, vv) = self._covariance
        drive = self._acceleration
        self._state = np.stack([self._state[0] + seconds * self._state[1], self._state[1]])
        cross = pv + seconds * vv + drive * seconds**3 / 2.0
        self._covariance = np.stack(
            [
                np.stack([pp + 2.0 * seconds * pv + seconds**2 * vv + drive * seconds**4 / 4.0, cross]),
                np.stack([cross, vv + drive * seconds**2]),
            ]
        )

    @property
    def position(self) -> NDArray[np.float64]:
        """Filtered angles within the joint limits, float64 [J], rad."""
        clipped: NDArray[np.float64] = np.clip(self._state[0], self._lower, self._upper)
        return clipped

    @property
    def velocity(self) -> NDArray[np.float64]:
        """Filtered angular velocities, float64 [J], rad/s."""
        velocity: NDArray[np.float64] = self._state[1]
        return velocity

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation of the filtered angles, float64 [J], rad."""
        deviation: NDArray[np.float64] = np.sqrt(self._covariance[0, 0])
        return deviation
