"""What several test modules share: a small exported model with random weights."""

from __future__ import annotations

import importlib.util
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

# Threads of tiny products wait for each other in a loop: with all cores taken by others that is minutes for seconds.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from synthetic import familiar, unfamiliar

from ropes_ros.errors import RopesError

with suppress(RopesError):
    import ropes_ros.sim.scene  # noqa: F401  (chooses the OpenGL backend before any test imports mujoco)

CAMERA = (64, 48)
"""(width, height) that the small model takes."""


@pytest.fixture(scope="session")
def tables() -> Any:
    """docs/tables.py, a module that is in no package."""
    path = Path(__file__).parents[1] / "docs" / "tables.py"
    spec = importlib.util.spec_from_file_location("interface_tables", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model for arm6 that knows nothing, but tells pictures of sticks from noise."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from ropes_ros.export import export
    from ropes_ros.framing import Region
    from ropes_ros.learning.augmentation import to_input
    from ropes_ros.learning.calibrate import Calibration, Familiar
    from ropes_ros.learning.checkpoint import CHECKPOINT_VERSION
    from ropes_ros.learning.networks import AngleNet
    from ropes_ros.learning.train import TrainConfig
    from ropes_ros.robot import load_robot

    robot = load_robot("arm6")
    joints = len(robot.joints)
    torch.manual_seed(0)
    size = (32, 24)
    net = AngleNet(size, joints, dropout=0.0).eval()
    with torch.no_grad():
        known, noise = (
            net(to_input(np.stack([image[::2, ::2] for image in images]))).features.double().numpy()
            for images in ([familiar(number) for number in range(8)], [unfamiliar(number) for number in range(8)])
        )
    mean = known.mean(axis=0)
    towards = (noise.mean(axis=0) - mean)[:, None]
    axes = towards / np.linalg.norm(towards)
    reference = Familiar(mean, np.ones(len(mean)), axes, np.array([1.0, 0.0]))
    scores = reference.distance(known), reference.distance(noise)
    assert scores[1].min() > 4.0 * scores[0].max()
    ones, knots = np.ones(joints), np.tile([-1.0, 1.0], (joints, 1))
    calibration = Calibration(
        std_scale=ones,
        std_scale_range=np.stack([ones, ones], axis=1),
        knots=knots,
        mapped=knots,
        map_gain=np.full((joints, 2), np.nan),
        identified=np.ones(joints, dtype=bool),
        truncated=True,
        held_out_loss=ones,
        floor=ones,
        familiar=reference,
        novelty_reference=float(np.sqrt(scores[0].max() * scores[1].min())) / 2.0,
    )
    folder = tmp_path_factory.mktemp("tiny")
    torch.save(
        {
            "version": CHECKPOINT_VERSION,
            "config": {**vars(TrainConfig()), "image_size": size},
            "architecture": net.architecture(),
            "best": net.state_dict(),
            "calibration": calibration.to_dict(),
            "supervision": "nothing",
            "progress": [1, 1, 1.0, 1],
            "history": [],
            "frames": {
                "robot": robot.name,
                "joint_names": list(robot.joint_names),
                "camera_size": list(CAMERA),
                "region": list(Region(0, 0, *CAMERA)),
                "bag_hash": "0" * 64,
                "frames": 16,
                "schedule_hash": "1" * 64,
                "level_ids": ["a", "b"],
                "level_label_noise": 0.5,
                "home": robot.home.tolist(),
                "half_range": robot.half_range.tolist(),
            },
        },
        folder / "checkpoint.pt",
    )
    return export(folder / "checkpoint.pt", folder / "model").parent
