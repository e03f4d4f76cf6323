"""What a difference of model files may do to a robot's folder, and what not: the robot goes on with what it has."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ropes_ros import model_delivery
from ropes_ros.encoder import CHECK_KEY, FRAMES_FILE, PRECISION_FILES, Encoder, read_frames, shipped_model, write_frames
from ropes_ros.errors import ModelError
from ropes_ros.model_delivery import MAGIC, apply, difference

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

INT2, INT4 = PRECISION_FILES["int2"], PRECISION_FILES["int4"]


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From the shipped model's int2 to its int4."""
    made = tmp_path_factory.mktemp("sent") / "update"
    difference(shipped_model("arm6") / INT2, shipped_model("arm6") / INT4, made)
    return made


@pytest.fixture()
def robot(tmp_path: Path) -> Path:
    """A robot's folder that holds int2."""
    folder = tmp_path / "robot"
    folder.mkdir()
    for name in (INT2, FRAMES_FILE, "card.md"):
        shutil.copy(shipped_model("arm6") / name, folder)
    return folder


def changed(sent: Path, to: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A difference with another header."""
    text, _, rest = zlib.decompress(sent.read_bytes()[len(MAGIC) :]).partition(b"\n")
    header = json.loads(text)
    change(header)
    to.write_bytes(MAGIC + zlib.compress(json.dumps(header).encode() + b"\n" + rest, 1))
    return to


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones included, with its SHA-256."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def another_version(folder: Path, name: str, **properties: str) -> None:
    """Change a model file's metadata, and state its new SHA-256 in the card."""
    path, card = folder / name, folder / "card.md"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    model = onnx.load(str(path))
    for entry in model.metadata_props:
        entry.value = properties.get(entry.key, entry.value)
    entry = model.metadata_props.add()
    entry.key, entry.value = "version", "2"
    onnx.save(model, str(path))
    card.write_text(card.read_text().replace(before, hashlib.sha256(path.read_bytes()).hexdigest()))


@pytest.mark.parametrize("name", ["..", "", "card.md", ".bashrc", "../x.onnx", "a\0b.onnx", "x" * 300 + ".onnx", 7])
def test_a_difference_writes_no_file_but_a_model(name: object, sent: Path, robot: Path, tmp_path: Path) -> None:
    bad = changed(sent, tmp_path / "bad", lambda header: header["new"].update(name=name))
    before = contents(tmp_path)
    with pytest.raises(ModelError, match=r"is damaged; nothing was written"):
        apply(robot / INT2, bad)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("card", ["", "# another card", None, "\ud800", 7])
def test_a_card_that_does_not_vouch_for_the_new_file_replaces_none(
    card: object, sent: Path, robot: Path, tmp_path: Path
) -> None:
    bad = changed(sent, tmp_path / "bad", lambda header: header.update(card=card))
    before = contents(tmp_path)
    with pytest.raises(ModelError, match=r"is damaged; nothing was written"):
        apply(robot / INT2, bad)
    assert contents(tmp_path) == before and Encoder(robot, precision="int2").precision == "int2"


def test_a_difference_takes_no_more_memory_than_a_model(
    sent: Path, robot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def many(header: dict[str, Any]) -> None:
        header["steps"] = [{"copy": [0, 1_000_000]}] * 500

    def wide(header: dict[str, Any]) -> None:
        next(step for step in header["steps"] if "from" in step)["to"][2] = 10**12

    taken: list[int] = []
    plain = model_delivery._applied

    def watched(*arguments: Any) -> bytes:
        made = plain(*arguments)
        taken.append(len(made))
        return made

    monkeypatch.setattr(model_delivery, "_applied", watched)
    monkeypatch.setattr(model_delivery, "MAX_MODEL_BYTES", 4_000_000)
    for change in (many, wide):
        with pytest.raises(ModelError, match=r"is damaged"):
            apply(robot / INT2, changed(sent, tmp_path / "bad", change))
    assert sum(taken) < 10_000_000


def test_an_update_that_was_interrupted_is_completed_by_repeating_it(
    robot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new version under the old name, cut off between the model and its card."""
    maker = tmp_path / "maker"
    shutil.copytree(robot, maker)
    another_version(maker, INT2)
    difference(robot / INT2, maker / INT2, tmp_path / "update")
    plain = os.replace

    def cut_off(source: Path, target: Path) -> None:
        if target.name == "card.md":
            raise KeyboardInterrupt
        plain(source, target)

    monkeypatch.setattr(os, "replace", cut_off)
    with pytest.raises(KeyboardInterrupt):
        apply(robot / INT2, tmp_path / "update")
    monkeypatch.undo()
    for _ in range(2):
        apply(robot / INT2, tmp_path / "update")
        assert contents(robot) == contents(maker)
    assert Encoder(robot, precision="int2").precision == "int2"


def test_frames_come_along_where_the_new_file_is_checked_on_others(robot: Path, tmp_path: Path) -> None:
    maker = tmp_path / "maker"
    shutil.copytree(robot, maker)
    write_frames(maker, read_frames(maker, (320, 240))[::-1])
    stated = json.loads(next(e.value for e in onnx.load(str(robot / INT2)).metadata_props if e.key == CHECK_KEY))
    said = {name: values[::-1] for name, values in stated.items() if name != "frames"}
    shown = hashlib.sha256((maker / FRAMES_FILE).read_bytes()).hexdigest()
    another_version(maker, INT2, **{CHECK_KEY: json.dumps({"frames": shown, **said})})
    difference(robot / INT2, maker / INT2, tmp_path / "update")
    apply(robot / INT2, tmp_path / "update")
    assert contents(robot) == contents(maker)
    assert Encoder(robot, precision="int2").precision == "int2"


def test_a_difference_is_made_of_vouched_files_and_overwrites_none(robot: Path, tmp_path: Path) -> None:
    maker = tmp_path / "maker"
    shutil.copytree(robot, maker)
    before = contents(tmp_path)
    for target in (maker / INT2, maker / "card.md"):
        with pytest.raises(ModelError, match=r"is there, and no difference of models; name another file"):
            difference(robot / INT2, maker / INT2, target)
    assert contents(tmp_path) == before
    (tmp_path / "cut-off").touch()  # as a full disk leaves one
    assert difference(robot / INT2, maker / INT2, tmp_path / "cut-off") > 0
    (maker / "card.md").write_text("# another card")
    with pytest.raises(ModelError, match=r"its SHA-256 is not the one in card.md"):
        difference(robot / INT2, maker / INT2, tmp_path / "update")
    (maker / "card.md").unlink()
    with pytest.raises(ModelError, match=r"card.md: no such file"):
        difference(robot / INT2, maker / INT2, tmp_path / "update")
    assert not (tmp_path / "update").exists()
