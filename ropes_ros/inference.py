"""onnxruntime sessions for robots: which execution provider runs, with what settings, and what really came of it.

What is asked for and what runs are two things: onnxruntime goes on with the next provider where one cannot start.
`Session.providers` is what the session says of itself, and is what is published.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ropes_ros.errors import ModelError, RuntimeSetupError

PROVIDERS: Mapping[str, str] = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""Name in parameters -> onnxruntime's name, in the order in which they are tried by default."""
GPU_PROVIDERS = (PROVIDERS["tensorrt"], PROVIDERS["cuda"])
CUDA_OPTIONS = {"use_tf32": "0"}
"""TF32 would move angles by a tenth of their std, and gains nothing at these sizes."""
WORKSPACE_BYTES = 1 << 30
"""GPU memory that TensorRT may try kernels with."""
PROGRESS_S = 10.0
"""How often it is said that an engine is still being built."""
_LOADING = threading.Lock()
"""Held while onnxruntime loads: what it prints goes to standard error meanwhile, in the whole process."""

Say = Callable[[str], None]


class Session:
    """A model on the first of the wanted providers that works.

    One thread computes without spinning unless told otherwise: on a small robot the other cores belong to others. The
    memory arena stays on, so that inference allocates nothing once it has run. On a GPU, input and outputs stay in
    buffers there, bound once for each batch size. On CUDA all kernels of an inference are launched as one graph where
    every node of the model runs there, and 32 bit is 32 bit: TF32 is off.

    Args:
        content: The model's bytes.
        name: What it is called in messages.
        providers: Names out of `PROVIDERS`, in order; the CPU is always tried last.
        threads: Threads within one inference; onnxruntime's choice when 0.
        half: The model computes in 16 bit, and TensorRT may too.
        cache: Folder for TensorRT's engines.
        say: Told in a line what takes long.

    Raises:
        ModelError: onnxruntime cannot load it.
        RuntimeSetupError: No onnxruntime, or an unknown provider.
    """

    def __init__(
        self,
        content: bytes,
        name: str,
        *,
        providers: Sequence[str] = tuple(PROVIDERS),
        threads: int = 0,
        half: bool = False,
        cache: Path | None = None,
        say: Say = lambda line: None,
    ) -> None:
        onnxruntime = _onnxruntime()
        wanted = _wanted(providers, onnxruntime.get_available_providers())
        self._name, self._say = name, say
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.load_model_format", "ONNX")
        settings: list[Any] = []
        for provider in wanted:
            if provider == PROVIDERS["tensorrt"]:
                folder = (cache or default_cache()) / engine_key(content, half)
                folder.mkdir(parents=True, exist_ok=True)
                settings.append((provider, _tensorrt_options(folder, half)))
                if not any(folder.glob("*.engine")):
                    say(f"TensorRT builds an engine for {name}, once for this model and GPU; it may take minutes")
            elif provider == PROVIDERS["cuda"]:
                settings.append((provider, CUDA_OPTIONS))
            else:
                settings.append(provider)
        with _progress(f"still loading {name}", say), _LOADING, redirect_stdout(sys.stderr):
            if any(provider in GPU_PROVIDERS for provider in wanted):
                _preload(onnxruntime)
            try:
                self._session = onnxruntime.InferenceSession(content, options, providers=settings)
            except Exception as error:
                reason = str(error).strip().splitlines()[0][:200]
                raise ModelError(f"{name}: onnxruntime cannot load it ({reason}); export it again") from None
            self.providers: tuple[str, ...] = tuple(self._session.get_providers())
            self.as_graph = False
            if self.providers[0] == PROVIDERS["cuda"]:
                options.log_severity_level = 4  # whether it can be done is what this tries
                with suppress(Exception):
                    graph = [(PROVIDERS["cuda"], {**CUDA_OPTIONS, "enable_cuda_graph": "1"}), PROVIDERS["cpu"]]
                    self._session = onnxruntime.InferenceSession(content, options, providers=graph)
                    self.as_graph = True
        self.properties: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.inputs = {entry.name: tuple(entry.shape) for entry in self._session.get_inputs()}
        self.outputs = {entry.name: tuple(entry.shape) for entry in self._session.get_outputs()}
        self._bound: dict[int, _Bound] = {}

    @property
    def on_gpu(self) -> bool:
        """Whether the provider that is asked first runs on a GPU."""
        return self.providers[0] in GPU_PROVIDERS

    def run(self, batch: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """The outputs, in the model's order, for a batch of the model's one input; the arrays are the caller's.

        Raises:
            ModelError: onnxruntime cannot run it.
        """
        try:
            return self._run(batch)
        except Exception as error:  # onnxruntime has a dozen types, without a common one
            reason = str(error).strip().partition("\n")[0][:200]
            raise ModelError(f"{self._name}: onnxruntime cannot run it ({reason}); export it again") from None

    def _run(self, batch: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        if not self.on_gpu:
            outputs: list[NDArray[np.float32]] = self._session.run(None, {next(iter(self.inputs)): batch})
            return outputs
        if len(batch) in self._bound:
            return self._bound[len(batch)](batch)
        bound = _Bound(self._session, batch, "cuda", self.as_graph)
        with _progress(f"still preparing {self._name} for batches of {len(batch)}", self._say):
            outputs = bound(batch)  # where TensorRT builds its engine, as models leave the batch size open
        self._bound[len(batch)] = bound
        return outputs


class _Bound:
    """Buffers on a device for one batch size: input and outputs are in the same memory each time.

    A CUDA graph holds their addresses, and is kept under the batch size's number.
    """

    def __init__(self, session: Any, batch: NDArray[np.uint8], device: str, as_graph: bool) -> None:
        onnxruntime = _onnxruntime()
        self._session = session
        self._input = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(batch), device, 0)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(session.get_inputs()[0].name, self._input)
        self._outputs: list[Any] = []
        for output in session.get_outputs():
            shape = [len(batch), *output.shape[1:]]
            buffer = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, device, 0)
            self._binding.bind_ortvalue_output(output.name, buffer)
            self._outputs.append(buffer)
        self._options = onnxruntime.RunOptions()
        if as_graph:
            self._options.add_run_config_entry("gpu_graph_id", str(len(batch)))

    def __call__(self, batch: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        self._input.update_inplace(np.ascontiguousarray(batch))
        self._session.run_with_iobinding(self._binding, self._options)
        return [np.array(buffer.numpy()) for buffer in self._outputs]


def offers_gpu(providers: Sequence[str]) -> bool:
    """Whether this onnxruntime has a wanted provider that runs on a GPU; whether it starts is another thing."""
    return _wanted(providers, _onnxruntime().get_available_providers())[0] in GPU_PROVIDERS


def default_cache() -> Path:
    """Folder for TensorRT's engines: `$XDG_CACHE_HOME/ropes_ros/tensorrt`, in `~/.cache` where that is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ropes_ros" / "tensorrt"


def engine_key(content: bytes, half: bool) -> str:
    """What an engine depends on, as a folder's name: the model, the GPU and its driver, versions, precision."""
    parts = [hashlib.sha256(content).hexdigest(), "fp16" if half else "fp32", _gpu()]
    for package in ("onnxruntime-gpu", "onnxruntime", "tensorrt", "tensorrt-cu12", "tensorrt-cu13"):
        try:
            parts.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _preload(onnxruntime: Any) -> None:
    """Load CUDA's and cuDNN's libraries where pip put them, in which no loader looks by itself; no TensorRT.

    onnxruntime has a function for it from 1.21 on; it prints what it does not find and goes on.
    Source: onnxruntime's documentation, CUDA Execution Provider, "Preload DLLs".
    """
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()


def _gpu() -> str:
    """Name and driver of the GPUs, as `nvidia-smi` tells them; empty where it is not there."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10.0, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _tensorrt_options(folder: Path, half: bool) -> dict[str, str]:
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
        "trt_fp16_enable": "1" if half else "0",
        "trt_max_workspace_size": str(WORKSPACE_BYTES),
    }


def _wanted(providers: Sequence[str], available: Sequence[str]) -> list[str]:
    """onnxruntime's names of the providers that this build of it has, the CPU at the end."""
    for name in providers:
        if name not in PROVIDERS:
            raise RuntimeSetupError(f"execution provider {name!r} is unknown; name some of {', '.join(PROVIDERS)}")
    names = [PROVIDERS[name] for name in providers if name != "cpu" and PROVIDERS[name] in available]
    return [*names, PROVIDERS["cpu"]]


@contextmanager
def _progress(line: str, say: Say) -> Iterator[None]:
    """Say every few seconds that something still goes on."""
    done = threading.Event()
    begin = time.monotonic()

    def tell() -> None:
        while not done.wait(PROGRESS_S):
            say(f"{line}, {time.monotonic() - begin:.0f} s")

    thread = threading.Thread(target=tell, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise RuntimeSetupError("onnxruntime is not installed; run `pip install 'ropes_ros[cpu]'` or `[gpu]`") from None
    return onnxruntime
