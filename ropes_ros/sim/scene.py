"""The simulated scene: a preset's URDF on a table, lights, one camera and position controllers."""

from __future__ import annotations

import ctypes.util
import math
import os
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from ropes_ros.errors import RobotError, RuntimeSetupError
from ropes_ros.robot import Robot
from ropes_ros.simulation import CAMERA_KEYS, optical_rotation, section

RENDERING_HELP = "install the packages libegl1 libgl1 libgl1-mesa-dri (apt) and set MUJOCO_GL=egl"

# MuJoCo chooses its OpenGL backend when it is imported, and fails where that is missing; without a display only
# EGL can render, and without EGL there is still the physics.
if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    os.environ.setdefault("MUJOCO_GL", "egl" if ctypes.util.find_library("EGL") else "disabled")
try:
    import mujoco as mujoco
except (ImportError, AttributeError, OSError, RuntimeError) as error:
    gl = os.environ.get("MUJOCO_GL", "")
    raise RuntimeSetupError(f"MuJoCo cannot be imported (MUJOCO_GL={gl!r}): {error}: {RENDERING_HELP}") from error

Array = npt.NDArray[np.float64]

CAMERA, TABLE, LAMP, BULB = "camera", "table", "lamp", "bulb"
_TABLE_SIZE = 8.0  # m, half the edge


def build_model(robot: Robot, width: int, height: int, timestep: float, seed: int) -> Any:
    """The preset's scene as a compiled MuJoCo model.

    Every robot joint gets a position controller (torque = stiffness * error - damping * velocity, within the
    URDF's effort limit); the links' weight is compensated, as industrial controllers do. Links that a joint
    connects may touch.

    Args:
        robot: A robot whose preset has a `sim` section.
        width: Image width in pixels.
        height: Image height in pixels.
        timestep: Longest physics step in seconds.
        seed: Seed of the surroundings: the table's tint and the lamp's direction.

    Raises:
        RobotError: The preset has no or a malformed `sim` section, or MuJoCo refuses the URDF.
    """
    camera = section(robot, "camera", CAMERA_KEYS)
    count = len(robot.joints)
    actuators = section(robot, "actuators", {"stiffness": count, "damping": count})
    try:
        spec = mujoco.MjSpec.from_file(str(robot.urdf_path))
        base = spec.body(robot.base_link)
        if base is None:
            raise RobotError(
                f"{robot.urdf_path}: MuJoCo merged '{robot.base_link}' into the world:"
                ' add <mujoco><compiler discardvisual="false" fusestatic="false"/></mujoco> to the URDF'
            )
        spec.option.timestep = timestep
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.visual.global_.offwidth = width
        spec.visual.global_.offheight = height
        spec.visual.quality.offsamples = 0
        spec.visual.quality.numslices, spec.visual.quality.numstacks, spec.visual.quality.numquads = 16, 8, 1
        spec.visual.map.znear = 0.02
        spec.visual.headlight.ambient = [0.45, 0.45, 0.45]
        spec.visual.headlight.diffuse = [0.25, 0.25, 0.25]
        spec.visual.headlight.specular = [0.0, 0.0, 0.0]
        for body in spec.bodies[1:]:
            body.gravcomp = 1.0
            spec.add_exclude(bodyname1=body.parent.name, bodyname2=body.name)
            if any(geom.contype == 0 for geom in body.geoms):  # it has visuals: hide its collision shapes
                for geom in body.geoms:
                    geom.group = 3 if geom.contype else geom.group
        for name, stiffness, damping in zip(
            robot.joint_names, actuators["stiffness"], actuators["damping"], strict=True
        ):
            spec.add_actuator(
                name=name,
                trntype=mujoco.mjtTrn.mjTRN_JOINT,
                target=name,
                gainprm=[stiffness] + [0.0] * 9,
                biastype=mujoco.mjtBias.mjBIAS_AFFINE,
                biasprm=[0.0, -stiffness, -damping] + [0.0] * 7,
            )
        _add_surroundings(spec, seed)
        # MuJoCo's camera looks along -z with y up; the optical frame looks along z with y down.
        orientation = np.empty(4)
        rotation = optical_rotation(camera["position"], camera["look_at"]) @ np.diag([1.0, -1.0, -1.0])
        mujoco.mju_mat2Quat(orientation, rotation.ravel())
        base.add_camera(
            name=CAMERA,
            pos=camera["position"],
            quat=orientation,
            fovy=math.degrees(camera["fovy"][0]),
        )
        return spec.compile()
    except (ValueError, mujoco.FatalError) as error:
        raise RobotError(f"MuJoCo refuses {robot.urdf_path}: {' '.join(str(error).split())}") from error


def _add_surroundings(spec: Any, seed: int) -> None:
    """Add a table that fills the view, a lamp without shadows and a bulb that is off; the seed draws tint and light."""
    rng = np.random.default_rng(seed)
    spec.worldbody.add_geom(
        name=TABLE,
        type=mujoco.mjtGeom.mjGEOM_BOX,  # a plane would be drawn in many more pieces
        size=[_TABLE_SIZE, _TABLE_SIZE, 0.05],
        pos=[0.0, 0.0, -0.05],
        rgba=[*rng.uniform(0.25, 0.28, 3), 1.0],
    )
    spec.worldbody.add_light(
        name=LAMP,
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        dir=np.array([-0.4, 0.3, -0.85]) + rng.uniform(-0.05, 0.05, 3),
        diffuse=[0.45, 0.45, 0.45],
        specular=[0.0, 0.0, 0.0],
        castshadow=False,
    )
    spec.worldbody.add_light(
        name=BULB,
        type=mujoco.mjtLightType.mjLIGHT_SPOT,  # of mjLIGHT_POINT, MuJoCo 4.0's renderer shows nothing
        cutoff=90.0,
        exponent=0.0,
        active=False,
        specular=[0.0, 0.0, 0.0],
        castshadow=False,
    )
