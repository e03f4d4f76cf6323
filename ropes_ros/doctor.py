"""What this machine has and what works on it: packages, runtime, inference, rendering and discovery.

What may crash, hang or change the process (graphics drivers, CUDA, DDS) is tried in processes of its own.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from typing import Any

from ropes_ros.paths import share_dir
from ropes_ros.processes import free_domain, has_ros

TIMEOUT = 60.0
"""Seconds that one trial may take."""


class State(str, Enum):
    """Outcome of a check: it works, it is an optional part that is absent, or it is needed and broken."""

    OK = "ok"
    ABSENT = "absent"
    FAILED = "failed"


@dataclass(frozen=True)
class Check:
    """One line of the doctor's findings.

    Attributes:
        name: What was looked at.
        state: Outcome.
        detail: What was found.
        advice: What to do about it; empty when nothing need be done.
    """

    name: str
    state: State
    detail: str
    advice: str = ""


PACKAGES = {
    "numpy": ("numpy", ""),
    "opencv-python": ("cv2", ""),
    "PyYAML": ("yaml", ""),
    "pin": ("pinocchio", ""),
    "mcap": ("mcap", ""),
    "rosbags": ("rosbags", ""),
    "mujoco": ("mujoco", "sim"),
    "torch": ("torch", "train"),
    "onnx": ("onnx", "train"),
    "matplotlib": ("matplotlib", "train"),
    "onnxruntime": ("onnxruntime", "cpu"),
    "cyclonedds": ("cyclonedds", "standalone"),
}
"""Name on the package index -> (module, the extra that installs it; empty for what is always needed)."""

# A graph that hands one number through.
_IDENTITY = "CAgSADo3ChAKAXgSAXkiCElkZW50aXR5EgFnWg8KAXgSCgoICAESBAoCCAFiDwoBeRIKCggIARIECgIIAUIECgAQDQ=="

_INFERENCE = f"""
import base64, json, onnxruntime
onnxruntime.set_default_logger_severity(4)
getattr(onnxruntime, "preload_dlls", lambda: None)()
model, started = base64.b64decode("{_IDENTITY}"), []
offered = [name for name in onnxruntime.get_available_providers() if not name.startswith("Azure")]
for provider in offered:
    try:
        session = onnxruntime.InferenceSession(model, providers=[provider])
    except Exception:
        continue
    if provider in session.get_providers():
        started.append(provider)
print(json.dumps({{"started": started, "offered": offered}}))
"""

_TRAINING = """
import json, torch
name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
print(json.dumps({"gpu": name, "cuda": torch.version.cuda}))
"""

_RENDERING = """
import json, os
from ropes_ros.robot import load_robot
from ropes_ros.sim.arm import SimArm
image = SimArm(load_robot("arm6"), 64, 48).render()
print(json.dumps({"backend": os.environ.get("MUJOCO_GL", "the default"), "contrast": float(image.std())}))
"""


def examine() -> list[Check]:
    """All checks, in the order in which they are worth reading; takes a few seconds."""
    trials: list[Callable[[], Check]] = [inference, training, rendering, discovery]
    with ThreadPoolExecutor(len(trials)) as pool:
        slow = [pool.submit(trial) for trial in trials]
        quick = [interpreter(), installation(), runtime(), *packages()]
        return quick + [future.result() for future in slow]


def interpreter() -> Check:
    """The Python that runs."""
    return Check("Python", State.OK, f"{sys.version.split()[0]} at {sys.executable}")


def installation() -> Check:
    """The package's version and data files."""
    from ropes_ros import __version__
    from ropes_ros.errors import RopesError

    try:
        return Check("ropes_ros", State.OK, f"{__version__}, data files in {share_dir()}")
    except RopesError as error:
        return Check("ropes_ros", State.FAILED, f"{__version__}, no data files", str(error))


def runtime() -> Check:
    """Which runtime the nodes use."""
    if has_ros():
        distribution = os.environ.get("ROS_DISTRO", "unknown distribution")
        middleware = os.environ.get("RMW_IMPLEMENTATION", "the default middleware")
        return Check("runtime", State.OK, f"ROS 2 {distribution} on {middleware}")
    if find_spec("cyclonedds"):
        return Check("runtime", State.OK, "standalone on Cyclone DDS (no rclpy in this interpreter)")
    return Check(
        "runtime",
        State.ABSENT,
        "neither rclpy nor cyclonedds: nodes cannot run, training and evaluation can",
        "source a ROS 2 installation, or pip install 'ropes_ros[standalone]'",
    )


def packages() -> list[Check]:
    """Every package that some part needs, with its version."""
    return [_package(name, module, extra) for name, (module, extra) in PACKAGES.items()]


def _package(name: str, module: str, extra: str) -> Check:
    if find_spec(module) is None:
        if extra:
            return Check(name, State.ABSENT, "not installed", f"pip install 'ropes_ros[{extra}]'")
        return Check(name, State.FAILED, "not installed, but needed", "pip install ropes_ros")
    try:
        return Check(name, State.OK, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        owners = sorted(set(importlib.metadata.packages_distributions().get(module, [])))
        versions = [f"{owner} {importlib.metadata.version(owner)}" for owner in owners]
        return Check(name, State.OK, ", ".join(versions) or "a system package, version unknown")


def inference() -> Check:
    """Which execution providers onnxruntime starts; what it merely offers often does not."""
    if find_spec("onnxruntime") is None:
        return Check("inference", State.ABSENT, "no onnxruntime", "pip install 'ropes_ros[cpu]' or 'ropes_ros[gpu]'")
    answer = _try(_INFERENCE)
    if isinstance(answer, str):
        return Check("inference", State.FAILED, answer, "reinstall onnxruntime")
    detail = f"onnxruntime starts {', '.join(answer['started'])}"
    idle = [provider for provider in answer["offered"] if provider not in answer["started"]]
    if idle:
        return Check("inference", State.OK, f"{detail}; offered but not started: {', '.join(idle)}")
    return Check("inference", State.OK, detail)


def training() -> Check:
    """Whether torch finds a GPU."""
    if find_spec("torch") is None:
        return Check("training", State.ABSENT, "no torch", "pip install 'ropes_ros[train]'")
    answer = _try(_TRAINING)
    if isinstance(answer, str):
        return Check("training", State.FAILED, answer, "reinstall torch")
    if answer["gpu"]:
        return Check("training", State.OK, f"torch sees {answer['gpu']} (CUDA {answer['cuda']})")
    return Check("training", State.OK, "torch runs on the CPU (no GPU found)")


def rendering() -> Check:
    """Whether the simulated camera gives a picture."""
    if find_spec("mujoco") is None:
        return Check("rendering", State.ABSENT, "no mujoco", "pip install 'ropes_ros[sim]'")
    answer = _try(_RENDERING)
    if isinstance(answer, str):
        return Check(
            "rendering", State.FAILED, answer, "install libegl1 libgl1 libgl1-mesa-dri, or set MUJOCO_GL=osmesa"
        )
    if answer["contrast"] < 1.0:
        return Check("rendering", State.FAILED, f"{answer['backend']}: the picture is blank", "set MUJOCO_GL=osmesa")
    return Check("rendering", State.OK, f"a picture through {answer['backend']}")


def discovery() -> Check:
    """Whether two processes on a domain of their own hear each other."""
    if not has_ros() and find_spec("cyclonedds") is None:
        return Check("discovery", State.ABSENT, "no runtime to try it with")
    node = "ropes_ros.nodes.discovery"
    command = [sys.executable, "-m", *([] if has_ros() else ["ropes_ros.standalone"]), node]
    environment = {**os.environ, "ROS_DOMAIN_ID": str(free_domain())}
    pair = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = ""
    for process in pair:
        try:
            said += process.communicate(timeout=TIMEOUT)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    if all(process.returncode == 0 for process in pair):
        return Check("discovery", State.OK, "two processes on this machine hear each other")
    return Check(
        "discovery",
        State.FAILED,
        _last_line(said) or "two processes on this machine do not hear each other",
        "look at firewall, multicast and CYCLONEDDS_URI; docs/interface.md says more",
    )


def _try(script: str) -> dict[str, Any] | str:
    """What a script prints as JSON in its last line, or, when it fails, the last line of its complaint."""
    try:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return f"no answer within {TIMEOUT:.0f} s"
    if done.returncode:
        return _last_line(done.stderr) or f"ended with status {done.returncode}"
    answer: dict[str, Any] = json.loads(_last_line(done.stdout))
    return answer


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
