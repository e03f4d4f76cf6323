"""Sessions: which provider is asked for and which one runs, buffers on a device, engines that are kept, 16 bit."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic import familiar, unfamiliar

from ropes_ros import encoder as encoder_module
from ropes_ros import inference
from ropes_ros.encoder import (
    FRAMES_FILE,
    HALF_FILE,
    Encoder,
    file_sha256,
    read_frames,
    shipped_model,
    write_frames,
)
from ropes_ros.errors import ModelError, RuntimeSetupError
from ropes_ros.inference import PROVIDERS, Session

pytest.importorskip("onnxruntime")


class FakeRuntime:
    """An onnxruntime whose sessions note what they are made with; the wanted GPU providers work or do not."""

    def __init__(self, available: list[str], working: list[str]) -> None:
        self._available, self._working = available, working
        self.asked: list[Any] = []
        self.calls: list[str] = []
        self.waits = threading.Event()
        self.waits.set()

    def get_available_providers(self) -> list[str]:
        return self._available

    def SessionOptions(self) -> SimpleNamespace:
        return SimpleNamespace(add_session_config_entry=lambda *_: None)

    def preload_dlls(self) -> None:
        self.calls.append("preload")
        print("Failed to load libcublas")

    def InferenceSession(self, content: bytes, options: Any, providers: list[Any]) -> SimpleNamespace:
        self.asked = providers
        self.calls.append("session")
        print("*** EP Error ***")
        self.waits.wait(10.0)
        names = [entry if isinstance(entry, str) else entry[0] for entry in providers]
        return SimpleNamespace(
            get_providers=lambda: [name for name in names if name in self._working],
            get_modelmeta=lambda: SimpleNamespace(custom_metadata_map={}),
            get_inputs=lambda: [],
            get_outputs=lambda: [],
        )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    runtime = FakeRuntime([PROVIDERS["tensorrt"], PROVIDERS["cuda"], PROVIDERS["cpu"]], [PROVIDERS["cpu"]])
    monkeypatch.setattr(inference, "_onnxruntime", lambda: runtime)
    monkeypatch.setattr(inference, "_gpu", lambda: "Some GPU, 1.0\n")
    return runtime


def test_providers_are_tried_in_order_and_the_session_says_which_one_runs(fake: FakeRuntime, tmp_path: Path) -> None:
    session = Session(b"model", "m", providers=("cuda", "tensorrt"), cache=tmp_path)
    names = [entry if isinstance(entry, str) else entry[0] for entry in fake.asked]
    assert names == [PROVIDERS["cuda"], PROVIDERS["tensorrt"], PROVIDERS["cpu"]]
    assert session.providers == (PROVIDERS["cpu"],) and not session.on_gpu
    fake._working.insert(0, PROVIDERS["cuda"])
    assert Session(b"model", "m", cache=tmp_path).on_gpu
    Session(b"model", "m", providers=("cpu",))
    assert fake.asked == [PROVIDERS["cpu"]]
    fake._available.remove(PROVIDERS["tensorrt"])
    Session(b"model", "m", providers=("tensorrt",), cache=tmp_path / "none")
    assert fake.asked == [PROVIDERS["cpu"]] and not (tmp_path / "none").exists()
    with pytest.raises(RuntimeSetupError, match=r"'tpu' is unknown; name some of tensorrt, cuda, cpu"):
        Session(b"model", "m", providers=("tpu",))


def test_cuda_computes_in_32_bit_and_as_one_graph_where_it_can(
    fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake._working.insert(0, PROVIDERS["cuda"])
    session = Session(b"model", "m", providers=("cuda",))
    assert session.as_graph and session.on_gpu
    assert fake.asked[0] == (PROVIDERS["cuda"], {"use_tf32": "0", "enable_cuda_graph": "1"})
    plain = fake.InferenceSession

    def refusing(content: bytes, options: Any, providers: list[Any]) -> SimpleNamespace:
        if any("enable_cuda_graph" in entry[1] for entry in providers if isinstance(entry, tuple)):
            raise RuntimeError("This session cannot use the graph capture feature as requested by the user")
        return plain(content, options, providers)

    monkeypatch.setattr(fake, "InferenceSession", refusing)
    session = Session(b"model", "m", providers=("cuda",))
    assert session.on_gpu and not session.as_graph
    assert fake.asked == [(PROVIDERS["cuda"], {"use_tf32": "0"}), PROVIDERS["cpu"]]


def test_an_engine_is_kept_for_one_model_gpu_and_precision(
    fake: FakeRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def folder(content: bytes = b"model", half: bool = False) -> Path:
        Session(content, "m", providers=("tensorrt",), cache=tmp_path, half=half, say=said.append)
        options = fake.asked[0][1]
        assert options["trt_engine_cache_enable"] == "1" and options["trt_fp16_enable"] == str(int(half))
        return Path(options["trt_engine_cache_path"])

    first = folder()
    assert first.parent == tmp_path and "builds an engine for m" in said[0]
    (first / "some.engine").touch()
    assert folder() == first and len(said) == 1, "nothing is built again"
    others = {folder(b"another"), folder(half=True)}
    monkeypatch.setattr(inference, "_gpu", lambda: "Another GPU, 1.0\n")
    others.add(folder())
    assert len(others | {first}) == 4


def test_an_engine_is_not_kept_across_releases_of_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"onnxruntime-gpu": "1.31.1", "tensorrt-cu13": "10.14"}

    def version(package: str) -> str:
        if package not in installed:
            raise inference.metadata.PackageNotFoundError(package)
        return installed[package]

    monkeypatch.setattr(inference, "_gpu", lambda: "Some GPU, 1.0\n")
    monkeypatch.setattr(inference.metadata, "version", version)
    first = inference.engine_key(b"model", False)
    installed["tensorrt-cu13"] = "10.16"
    assert inference.engine_key(b"model", False) != first


def test_libraries_that_pip_brought_are_loaded_before_a_gpu_is_tried(
    fake: FakeRuntime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Session(b"model", "m", providers=("cuda",))
    assert fake.calls == ["preload", "session"]
    Session(b"model", "m", providers=("cpu",))
    fake._available.remove(PROVIDERS["cuda"])
    Session(b"model", "m", providers=("cuda",))
    assert fake.calls == ["preload", "session", "session", "session"], "not for the CPU, nor where CUDA is not offered"
    out, err = capsys.readouterr()
    assert out == "" and "libcublas" in err and "EP Error" in err, "output of `--json` stays JSON"


def test_an_onnxruntime_that_cannot_preload_is_used_as_it_is(
    fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(FakeRuntime, "preload_dlls")
    Session(b"model", "m", providers=("cuda",))
    assert fake.calls == ["session"]


def test_what_takes_long_is_said_again(fake: FakeRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "PROGRESS_S", 0.01)
    fake.waits.clear()
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if len(said) == 3:
            fake.waits.set()

    Session(b"model", "m", providers=("cpu",), say=say)
    assert len(said) >= 3 and all(line.startswith("still loading m") for line in said)


def test_a_gpu_that_is_demanded_and_not_used_is_an_error(tiny_model: Path) -> None:
    if Encoder(tiny_model).providers[0] != PROVIDERS["cpu"]:
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeSetupError, match=r"a GPU was required, but onnxruntime runs model.onnx on CPU"):
        Encoder(tiny_model, require_gpu=True)


def test_buffers_on_a_device_give_what_plain_runs_give(tiny_model: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tiny_model / "model.onnx"), providers=[PROVIDERS["cpu"]])
    for count in (1, 3):
        batches = [np.stack([familiar(number + shift) for number in range(count)]) for shift in range(3)]
        bound = inference._Bound(session, batches[0], "cpu", False)
        for batch in batches:
            for ours, plain in zip(bound(batch), session.run(None, {"image": batch}), strict=True):
                np.testing.assert_array_equal(ours, plain)


def test_the_first_inference_of_a_batch_size_says_that_it_takes_long(
    fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake._working.insert(0, PROVIDERS["cuda"])
    said: list[str] = []
    slow = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        slow.set()

    def run(batch: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        assert slow.wait(10.0), "nothing is said while an engine is built"
        return [batch]

    session = Session(b"model", "m", providers=("cuda",), say=say)
    monkeypatch.setattr(inference, "PROGRESS_S", 0.01)
    monkeypatch.setattr(inference, "_Bound", lambda *_: run)
    picture = np.zeros((1, 2, 2, 3), np.uint8)
    assert session.run(picture)[0] is picture
    assert said[0].startswith("still preparing m for batches of 1")


def test_a_batch_of_several_cameras_is_each_of_them(tiny_model: Path) -> None:
    encoder = Encoder(tiny_model)
    pictures = [familiar(number) for number in range(4)]
    together = encoder.run(np.stack(pictures))
    for number, picture in enumerate(pictures):
        for one, all_ in zip(encoder.run(picture), together, strict=True):
            np.testing.assert_allclose(one[0], all_[number], atol=1e-5)


def copied(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    return folder


def vouch(folder: Path, name: str) -> None:
    """Make the card state what a file is now."""
    card = folder / "card.md"
    lines = [line for line in card.read_text().splitlines() if f"SHA-256 of {name}:" not in line]
    card.write_text("\n".join([*lines, f"SHA-256 of {name}: `{file_sha256(folder / name)}`"]))


def test_sixteen_bits_are_checked_on_stored_frames(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(tiny_model, tmp_path / "model")
    with pytest.raises(ModelError, match=r"frames.png: missing; all precisions but fp32 are checked on"):
        Encoder(folder, precision="fp16")
    pictures = np.stack([familiar(number) for number in range(4)])
    write_frames(folder, pictures)
    np.testing.assert_array_equal(read_frames(folder, (64, 48)), pictures)
    half, full = Encoder(folder, precision="fp16"), Encoder(folder)
    assert half.half_loss is not None and full.half_loss is None
    assert half.sha256 == file_sha256(folder / HALF_FILE) != full.sha256
    found, exact = half.run(pictures), full.run(pictures)
    assert half.half_loss.position == pytest.approx((abs(found.position - exact.position) / exact.std).max())
    assert 0.0 < half.half_loss.position < encoder_module.HALF_POSITION
    monkeypatch.setattr(encoder_module, "HALF_POSITION", half.half_loss.position / 2.0)
    with pytest.raises(ModelError, match=r"in fp16, angles of the stored frames change by up to .* set precision"):
        Encoder(folder, precision="fp16")
    with pytest.raises(RuntimeSetupError, match=r"'int3' is unknown; take one of auto, fp32, fp16"):
        Encoder(folder, precision="int3")


def test_damaged_or_foreign_sixteen_bit_files_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = copied(tiny_model, tmp_path / "model")
    write_frames(folder, np.stack([unfamiliar(0, (32, 24))]))
    with pytest.raises(ModelError, match=r"holds no frames of 64x48"):
        Encoder(folder, precision="fp16")
    (folder / FRAMES_FILE).write_bytes(b"no picture")
    with pytest.raises(ModelError, match=r"frames.png: .*cannot be decoded"):
        Encoder(folder, precision="fp16")
    (folder / HALF_FILE).write_bytes((folder / HALF_FILE).read_bytes() + b"\0")
    with pytest.raises(ModelError, match=r"model.fp16.onnx: its SHA-256 is not the one in card.md"):
        Encoder(folder, precision="fp16")
    (folder / HALF_FILE).unlink()
    with pytest.raises(ModelError, match=r"model.fp16.onnx: no such model; make its fp16 version with `ropes export`"):
        Encoder(folder, precision="fp16")


def test_the_graph_must_be_what_the_metadata_says(tiny_model: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    for number, (key, value) in enumerate({"camera_size": [80, 60], "joint_names": ["a"] * 2}.items()):
        folder = copied(tiny_model, tmp_path / str(number))
        model = onnx.load(str(folder / "model.onnx"))
        (entry,) = model.metadata_props
        content = {**json.loads(entry.value), key: value}
        if key == "joint_names":
            content.update(lower=[0.0] * 2, upper=[1.0] * 2)
        entry.value = json.dumps(content)
        onnx.save(model, str(folder / "model.onnx"))
        vouch(folder, "model.onnx")
        with pytest.raises(ModelError, match=r"inputs or outputs are not those of a ropes_ros model"):
            Encoder(folder)


def test_the_shipped_model_runs_in_sixteen_bits() -> None:
    loss = Encoder(shipped_model("arm6"), precision="fp16").half_loss
    assert loss is not None and loss.position > 0.0
