"""The simulated arm: physics under position control, and pictures from its camera."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ropes_ros.errors import RuntimeSetupError
from ropes_ros.robot import Robot
from ropes_ros.sim.look import PLAIN, Look, Solid
from ropes_ros.sim.scene import BULB, CAMERA, LAMP, RENDERING_HELP, TABLE, build_model, mujoco

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
        self._look = PLAIN
        self._plain = _surroundings(self._model)
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

    def collides(self, q: npt.ArrayLike) -> bool:
        """Whether the arm touches itself or the table at q (J,) in rad."""
        data = mujoco.MjData(self._model)
        data.qpos[self._q_index] = q
        mujoco.mj_kinematics(self._model, data)
        mujoco.mj_comPos(self._model, data)
        mujoco.mj_collision(self._model, data)
        return bool(data.ncon)

    def deflections(self, q: Array) -> Array:
        """How far gravity would push the joints at positions q (N, J) in rad if nothing compensated the links' weight.

        Returns:
            Gravity's torque over the controller's stiffness, (N, J) in rad.
        """
        data = mujoco.MjData(self._model)
        stiffness = self._model.actuator_gainprm[:, 0]
        torque = np.empty(self._model.nv)
        result = np.empty(q.shape)
        for row, position in zip(result, q, strict=True):
            data.qpos[self._q_index] = position
            mujoco.mj_kinematics(self._model, data)
            mujoco.mj_comPos(self._model, data)
            mujoco.mj_rne(self._model, data, 0, torque)
            row[:] = -torque[self._v_index] / stiffness
        return result

    def render(self, look: Look = PLAIN) -> npt.NDArray[np.uint8]:
        """The camera's picture of the present state: uint8 (H, W, 3) RGB, a new array.

        Args:
            look: How the surroundings look in this picture; `camera_pose` tells of the camera's own place alone.

        Raises:
            RuntimeSetupError: The arm was made with render=False.
        """
        if self._renderer is None:
            raise RuntimeSetupError("this SimArm was made with render=False")
        if look is not self._look:
            self._apply(look)
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        self._renderer.update_scene(self._data, CAMERA)
        for solid in look.solids:
            _add_solid(self._renderer.scene, solid)
        image: npt.NDArray[np.uint8] = self._renderer.render()
        for patch in look.patches:
            patch.lay_over(image)
        return image

    def _apply(self, look: Look) -> None:
        """Set the model's surroundings."""
        self._look = look
        model, plain = self._model, self._plain
        lamp, bulb, camera = model.light(LAMP), model.light(BULB), model.camera(CAMERA)
        lamp.dir[:] = plain["lamp_direction"]
        if look.lamp_direction is not None:
            lamp.dir[:] = look.lamp_direction / np.linalg.norm(look.lamp_direction)
        lamp.diffuse[:] = plain["lamp_rgb"] if look.lamp_rgb is None else look.lamp_rgb
        ambient = plain["ambient_rgb"] if look.ambient_rgb is None else look.ambient_rgb
        model.vis.headlight.ambient[:] = ambient
        bulb.active[:] = look.bulb_position is not None
        if look.bulb_position is not None:
            bulb.pos[:] = look.bulb_position
            bulb.dir[:] = -look.bulb_position / np.linalg.norm(look.bulb_position)
        if look.bulb_rgb is not None:
            bulb.diffuse[:] = look.bulb_rgb
        model.geom(TABLE).rgba[:3] = plain["table_rgb"] if look.table_rgb is None else look.table_rgb
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, plain["camera_quat"])
        shift = np.zeros(3) if look.camera_shift is None else look.camera_shift
        camera.pos[:] = plain["camera_position"] + rotation.reshape(3, 3) @ shift
        camera.quat[:] = plain["camera_quat"]
        if look.camera_turn is not None:
            mujoco.mju_quatIntegrate(camera.quat, look.camera_turn, 1.0)

    def intrinsics(self) -> Array:
        """Camera matrix (3, 3) in pixels of a pinhole without distortion; pixel centres are whole numbers."""
        focal = self._height / 2 / math.tan(math.radians(self._model.camera(CAMERA).fovy[0]) / 2)
        return np.array(
            [[focal, 0.0, (self._width - 1) / 2], [0.0, focal, (self._height - 1) / 2], [0.0, 0.0, 1.0]]
        )

    def camera_pose(self) -> tuple[Array, Array]:
        """Position (3,) in m and quaternion (4,) xyzw of the optical frame (z forward, x right) in the base."""
        w, x, y, z = self._plain["camera_quat"]
        # Half a turn about the camera's x axis takes MuJoCo's axes (y up, z backward) to the optical ones.
        return self._plain["camera_position"].copy(), np.array([w, z, -y, -x])

    def close(self) -> None:
        """Release the OpenGL context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _surroundings(model: Any) -> dict[str, Array]:
    """Copies of all that a Look can change."""
    lamp, camera = model.light(LAMP), model.camera(CAMERA)
    return {
        "lamp_direction": np.array(lamp.dir),
        "lamp_rgb": np.array(lamp.diffuse),
        "ambient_rgb": np.array(model.vis.headlight.ambient),
        "table_rgb": np.array(model.geom(TABLE).rgba[:3]),
        "camera_position": np.array(camera.pos),
        "camera_quat": np.array(camera.quat),
    }


def _add_solid(scene: Any, solid: Solid) -> None:
    """Add a body to what is drawn next."""
    mujoco.mjv_initGeom(
        scene.geoms[scene.ngeom],
        getattr(mujoco.mjtGeom, f"mjGEOM_{solid.shape.upper()}"),
        solid.size,
        solid.position,
        solid.rotation.ravel(),
        np.append(solid.rgb, 1.0).astype(np.float32),
    )
    scene.ngeom += 1
