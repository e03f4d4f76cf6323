"""Two processes train as one does: the same loss within tolerance, the same weights in both, one of them writes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stick_frames import SIZE, stick_frames

torch = pytest.importorskip("torch")

from ropes_ros.errors import TrainingError
from ropes_ros.learning.checkpoint import load_checkpoint
from ropes_ros.learning.tasks import Task, make_task
from ropes_ros.learning.train import TrainConfig, train

CONFIG = TrainConfig(
    image_size=SIZE,
    epochs=3,
    batch_size=64,
    dropout=0.0,
    shift=0,
    light=0.0,
    noise=0.0,
    occlusion=0.0,
    precision="float32",
    span_s=4.0,
)
"""Nothing is drawn at random, so that processes differ from one alone only in how they cut batches."""
CHILD = "import sys; from pathlib import Path; from test_distributed import run; run(Path(sys.argv[1]))"


def run(folder: Path) -> None:
    """What each process does: train, and tell what it came to."""
    nets: list[Any] = []

    def keep(frames: Any, shares: Any, net: Any) -> Task:
        nets.append(net)
        return make_task("mechanism", frames, shares, net)

    steps: list[int] = []
    result = train(
        stick_frames(1200), folder, config=CONFIG, task=keep, on_step=lambda done, _total, _loss: steps.append(done)
    )
    told = {
        "training": [entry.training_loss for entry in result.history],
        "held_out": [entry.validation_loss for entry in result.history],
        "weights": float(sum(value.detach().double().abs().sum() for value in nets[0].parameters())),
        "steps": len(steps),
        "novelty": result.calibration.novelty_reference,
    }
    (folder / f"told{os.environ.get('RANK', '')}.json").write_text(json.dumps(told))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What one process alone told, and then each of two."""
    alone, shared = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("shared")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(shared)],
            env={**common, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        run(alone)
        for child in children:
            assert child.wait(120) == 0, child.stderr.read() if child.stderr else ""
    finally:
        for child in children:
            child.kill()
    assert load_checkpoint(shared / "checkpoint.pt")["calibration"] is not None
    files = (alone / "told.json", shared / "told0.json", shared / "told1.json")
    return [json.loads(path.read_text()) for path in files]


def test_two_processes_reach_the_loss_of_one(told: list[dict[str, Any]]) -> None:
    """Each normalises by its own half batch, which is what the tolerance is for."""
    alone, first, _ = told
    assert alone["held_out"][0] - alone["held_out"][-1] > 0.1
    assert first["training"] == pytest.approx(alone["training"], abs=0.03)
    assert first["held_out"] == pytest.approx(alone["held_out"], abs=0.06)


def test_processes_hold_the_same_weights_and_results(told: list[dict[str, Any]]) -> None:
    alone, first, second = told
    assert first["weights"] == second["weights"]
    assert first["weights"] != alone["weights"]
    for name in ("training", "held_out", "novelty"):
        assert first[name] == second[name]


def test_only_the_first_process_reports(told: list[dict[str, Any]]) -> None:
    alone, first, second = told
    assert alone["steps"] == first["steps"] > 0
    assert second["steps"] == 0


def test_batches_that_processes_cannot_share_are_refused() -> None:
    from ropes_ros.learning.distributed import World
    from ropes_ros.learning.train import _check

    with pytest.raises(TrainingError, match="64 frames cannot be shared by 3 processes"):
        _check(CONFIG, World(0, 3, torch.device("cpu")))
