"""Messages of the estimator, from arrays."""

from __future__ import annotations

import array
from collections.abc import Sequence

import numpy as np
import pinocchio
from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped, TwistWithCovarianceStamped
from numpy.typing import NDArray
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Header

from ropes_ros.robot import Robot
from ropes_ros.tracking import TrackedState

Array = NDArray[np.float64]


def joint_state(
    header: Header, names: Sequence[str], position: NDArray[np.floating], velocity: Array | None = None
) -> JointState:
    """A sensor_msgs/JointState of values per joint, [J]."""
    message = JointState(header=header, name=list(names))
    message.position = np.asarray(position, dtype=np.float64).tolist()
    if velocity is not None:
        message.velocity = velocity.tolist()
    return message


def pose(header: Header, where: Array, turn: Array, covariance: Array) -> PoseWithCovarianceStamped:
    """A pose: position [3] in m, quaternion [4] xyzw, covariance [6, 6] in m^2 and rad^2, linear before angular."""
    message = PoseWithCovarianceStamped(header=header)
    spot, attitude = message.pose.pose.position, message.pose.pose.orientation
    spot.x, spot.y, spot.z = where.tolist()
    attitude.x, attitude.y, attitude.z, attitude.w = turn.tolist()
    message.pose.covariance = covariance.ravel()
    return message


def link_pose(header: Header, robot: Robot, tracked: TrackedState, link: str) -> PoseWithCovarianceStamped:
    """Pose of a link in the base frame; the joints' covariance goes through the Jacobian at the estimate."""
    where, turn = robot.fk(tracked.position, link)
    scaled = robot.jacobian(tracked.position, link) * tracked.position_std
    return pose(header, where, turn, scaled @ scaled.T)


def tip_twist(header: Header, robot: Robot, tracked: TrackedState) -> TwistWithCovarianceStamped:
    """Twist of the tip link's origin, in the base frame's axes; its covariance is that of the joints' velocities."""
    jacobian = robot.jacobian(tracked.position)
    linear_angular = (jacobian @ tracked.velocity).tolist()
    message = TwistWithCovarianceStamped(header=header)
    twist = message.twist.twist
    twist.linear.x, twist.linear.y, twist.linear.z = linear_angular[:3]
    twist.angular.x, twist.angular.y, twist.angular.z = linear_angular[3:]
    scaled = jacobian * tracked.velocity_std
    message.twist.covariance = (scaled @ scaled.T).ravel()
    return message


def seen_from(
    message: PoseWithCovarianceStamped, header: Header, camera: tuple[Array, Array]
) -> PoseWithCovarianceStamped:
    """A pose in the base frame as one in a camera's, whose position [3] and quaternion [4] xyzw there are given."""
    spot, attitude = message.pose.pose.position, message.pose.pose.orientation
    place = [spot.x, spot.y, spot.z, attitude.x, attitude.y, attitude.z, attitude.w]
    view = pinocchio.XYZQUATToSE3(np.concatenate(camera))
    seen = pinocchio.SE3ToXYZQUAT(view.actInv(pinocchio.XYZQUATToSE3(np.array(place))))
    turn = np.kron(np.eye(2), view.rotation.T)
    covariance = turn @ np.asarray(message.pose.covariance).reshape(6, 6) @ turn.T
    return pose(header, seen[:3], seen[3:], covariance)


def transform(message: PoseWithCovarianceStamped, child: str) -> TransformStamped:
    """A pose as the transform of a frame."""
    result = TransformStamped(header=message.header, child_frame_id=child)
    spot, move = message.pose.pose.position, result.transform
    move.translation.x, move.translation.y, move.translation.z = spot.x, spot.y, spot.z
    move.rotation = message.pose.pose.orientation
    return result


def picture(header: Header, pixels: NDArray[np.uint8]) -> Image:
    """A sensor_msgs/Image of RGB pixels, uint8 [H, W, 3]."""
    height, width, _ = pixels.shape
    message = Image(header=header, height=height, width=width, encoding="rgb8", step=3 * width)
    message.data = array.array("B", pixels.tobytes())
    return message
