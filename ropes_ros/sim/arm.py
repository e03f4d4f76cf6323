"""The simulated arm: physics under position control, and pictures from its camera."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ropes_ros.errors import RuntimeSetupError
from ropes_ros.robot import Robot
from ropes_ros.sim.scene import CAMERA, RENDERING_HELP, build_model, mujoco

Array = npt.NDArray[np.float64]


class SimArm:
    """A robot preset in MuJoCo; it starts at home, at rest, at time 0.

    Use it from one thread: an OpenGL context belongs to the thread that renders.

    Args:
        robot: A robot whose preset has a `sim` section.
        width: Image width in pixels.
        height: Image height in pixels.
        timestep: Longest physics step in seconds.
        seed: Seed of the surroundings: the table's tint and the lamp's direction vary a little.
        render: Whether `render` will be called; False needs no OpenGL.

    Raises:
        RobotError: The preset's `sim` section is missing or malformed, or MuJoCo refuses the URDF.
        RuntimeSetupError: No OpenGL backend can start.
    """

    def __init__(
        self,
        robot: Robot,
        width: int = 320,
        height: int = 240,
        *,
        timestep: float = 0.002,
        seed: int = 0,
        render: bool = True,
    ) -> None:
        self._width, self._height = width, height
        self._timestep = timestep
        self._model = build_model(robot, width, height, timestep, seed)
        self._data = mujoco.MjData(self._model)
        joints = [self._model.joint(name) for name in robot.joint_names]
        self._q_index = np.array([joint.qposadr[0] for joint in joints])
        self._v_index = np.array([joint.dofadr[0] for joint in joints])
        self._renderer = None
        if render:
            try:
                self._renderer = mujoco.Renderer(self._model, height, width)
            except Exception as error:  # every OpenGL backend raises its own types
                raise RuntimeSetupError(f"rendering cannot start: {error}: {RENDERING_HELP}") from error
            for flag in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE"):
                self._renderer.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0
        self.set_positions(robot.home)

    @property
    def time(self) -> float:
        """Simulation time in seconds."""
        return float(self._data.time)

    def step_to(self, time: float, target: Callable[[float], Array]) -> None:
        """Step the physics to exactly `time`, in equal steps of at most the timestep.

        Args:
            time: The time to reach, in seconds; nothing happens if it is not ahead.
            target: Commanded joint positions (J,) in rad at a simulation time in seconds.
        """
        span = time - self._data.time
        if span <= 0:
            return
        start, count = self._data.time, math.ceil(span / self._timestep - 1e-9)
        self._model.opt.timestep = span / count
        for step in range(count):
            self._data.ctrl[:] = target(start + span * (step + 1) / count)
            mujoco.mj_step(self._model, self._data)
        self._data.time = time

    def set_positions(self, q: npt.ArrayLike) -> None:
        """Put the joints at q (J,) in rad, at rest, without physics."""
        self._data.qpos[self._q_index] = q
        self._data.qvel[:] = 0.0
        self._data.ctrl[:] = q

    def positions(self) -> Array:
        """Joint positions (J,) in rad."""
        return np.array(self._data.qpos[self._q_index])

    def velocities(self) -> Array:
        """Joint velocities (J,) in rad/s."""
        return np.array(self._data.qvel[self._v_index])

    def render(self) -> npt.NDArray[np.uint8]:
        """The camera's picture of the present state: uint8 (H, W, 3) RGB, a new array.

        Raises:
            RuntimeSetupError: The arm was made with render=False.
        """
        if self._renderer is None:
            raise RuntimeSetupError("this SimArm was made with render=False")
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        self._renderer.update_scene(self._data, CAMERA)
        image: npt.NDArray[np.uint8] = self._renderer.render()
        return image

    def intrinsics(self) -> Array:
        """Camera matrix (3, 3) in pixels of a pinhole without distortion; pixel centres are whole numbers."""
        focal = self._height / 2 / math.tan(math.radians(self._model.camera(CAMERA).fovy[0]) / 2)
        return np.array(
            [[focal, 0.0, (self._width - 1) / 2], [0.0, focal, (self._height - 1) / 2], [0.0, 0.0, 1.0]]
        )

    def camera_pose(self) -> tuple[Array, Array]:
        """Position (3,) in m and quaternion (4,) xyzw of the optical frame (z forward, x right) in the base."""
        camera = self._model.camera(CAMERA)
        w, x, y, z = camera.quat
        # Half a turn about the camera's x axis takes MuJoCo's axes (y up, z backward) to the optical ones.
        return np.array(camera.pos), np.array([w, z, -y, -x])

    def close(self) -> None:
        """Release the OpenGL context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
