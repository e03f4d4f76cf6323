"""Bags, models, presets and images from others: no code is run, nothing outside is touched, sizes stay bounded."""

from __future__ import annotations

import ast
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import lz4.frame
import numpy as np
import pytest
import yaml
import zstandard
from mcap.records import ChunkIndex
from mcap.writer import CompressionType, Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as RosbagsWriter
from synthetic import image_cdr, joint_states_cdr, typestore

from ropes_ros import bags, mcap_limits
from ropes_ros.bags import BagHeader, BagWriter, open_bag, recover
from ropes_ros.cli.output import print_facts, print_table, printable
from ropes_ros.encoder import MAX_SIDE, Encoder, ModelInfo, file_sha256
from ropes_ros.errors import BagError, ModelError, RobotError, RopesError, ScheduleError
from ropes_ros.images import compressed_to_rgb
from ropes_ros.robot import bundled_robot, load_robot
from ropes_ros.schedule import Schedule
from ropes_ros.yaml_text import MAX_ALIASES, MAX_DEPTH, parse_yaml

ROOT = Path(__file__).resolve().parent.parent
STATES, STATES_TYPE = "/joint_states", "sensor_msgs/msg/JointState"
BOMB = bytes(1 << 26)
"""What a few kilobytes unpack to."""


PLAIN_YAML = ("yaml_text.py", "yaml_values.py")
"""Modules with a loader of their own, which derives from the safe one; the second reads the user's parameter files."""


def trees() -> Iterator[tuple[Path, ast.AST]]:
    for path in sorted((ROOT / "ropes_ros").rglob("*.py")):
        yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func)


def small_bag(path: Path, count: int = 1) -> Path:
    """A bag of joint states; its storage file."""
    with BagWriter(path, robot="stick") as writer:
        writer.add_topic(STATES, STATES_TYPE)
        for number in range(count):
            writer.write(STATES, joint_states_cdr(number, ("a",), np.zeros(1)), number + 1)
    (file,) = path.glob("*.mcap")
    return file


def alter_metadata(path: Path, **changes: object) -> None:
    file = path / "metadata.yaml"
    document = yaml.safe_load(file.read_text())
    document["rosbag2_bagfile_information"].update(changes)
    file.write_text(yaml.safe_dump(document))


# Code


def test_nothing_that_is_loaded_can_run_code() -> None:
    """No pickle in any dress, no unsafe YAML, no text that becomes code, no shell."""
    found = []
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                if {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"} & set(names):
                    found.append(f"{path}:{node.lineno}: imports {', '.join(names)}")
            if not isinstance(node, ast.Call):
                continue
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            name = name_of(node)
            if name == "torch.load" and options.get("weights_only") != "True":
                found.append(f"{path}:{node.lineno}: torch.load without weights_only=True")
            if name.endswith(".load") and options.get("allow_pickle", "False") != "False":
                found.append(f"{path}:{node.lineno}: allows pickle")
            if name in ("yaml.load", "yaml.full_load", "yaml.unsafe_load") and path.name not in PLAIN_YAML:
                found.append(f"{path}:{node.lineno}: {name}; use parse_yaml")
            if name in ("eval", "exec", "compile", "os.system") or options.get("shell", "False") != "False":
                found.append(f"{path}:{node.lineno}: {name}")
    assert not found


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from ropes_ros.errors import TrainingError
    from ropes_ros.learning.checkpoint import load_checkpoint

    class Payload:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"version": 2, "payload": Payload()}, tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.getcwd []", "!!python/name:os.system", "!thing {}"])
def test_yaml_makes_no_objects(tag: str) -> None:
    with pytest.raises(RopesError, match="could not determine a constructor"):
        parse_yaml(f"a: {tag}")


# YAML


def test_deep_yaml_is_refused_before_it_overflows_the_parser(tmp_path: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    script = f"from ropes_ros.robot import load_robot; load_robot({str(tmp_path / 'robot.yaml')!r})"
    (tmp_path / "robot.yaml").write_text(deep)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 1 and f"RobotError: robot preset {tmp_path}/robot.yaml is not YAML" in done.stderr
    with pytest.raises(ScheduleError, match=f"nests deeper than {MAX_DEPTH}"):
        Schedule.from_yaml(deep)


def test_yaml_that_expands_is_refused_and_plain_aliases_are_not() -> None:
    assert parse_yaml("a: &home {home: 0.5}\nb: *home\nc: *home") == {key: {"home": 0.5} for key in "abc"}
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
    merges = "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 60))
    many = "a: &a x\nb: [" + "*a, " * (MAX_ALIASES + 1) + "]"
    for text in (laughs, merges, many, "a: &a [*a]"):
        with pytest.raises(RopesError, match="write the values out"):
            parse_yaml(text)


@pytest.mark.parametrize("value", ["2001-99-99", "9" * 5000, '!!binary "@"', "[1"])
def test_values_that_yaml_cannot_hold_are_an_error_of_the_file(value: str, tmp_path: Path) -> None:
    small_bag(tmp_path / "bag")
    (tmp_path / "bag" / "metadata.yaml").write_text(f"rosbag2_bagfile_information: {value}")
    with pytest.raises(BagError, match="is not a rosbag2 metadata file"):
        open_bag(tmp_path / "bag")


@pytest.mark.parametrize("topics, drops", [("[" * 200_000, "{}"), ("{}", '{"/a": 1e999}'), ("5", "{}")])
def test_a_header_that_cannot_be_is_an_error_of_the_bag(topics: str, drops: str) -> None:
    pairs = {"schema_version": "1", "robot": "arm6", "topics": topics, "drops": drops}
    with pytest.raises(BagError, match="bag: the bag's header is malformed"):
        BagHeader.from_strings(pairs, "bag")


# Paths


@pytest.mark.parametrize("name", ["../other/other_0.mcap", "/etc/passwd", "a/../../b.mcap"])
def test_metadata_may_not_name_files_outside_the_bag(name: str, tmp_path: Path) -> None:
    small_bag(tmp_path / "other")
    small_bag(tmp_path / "bag")
    alter_metadata(tmp_path / "bag", relative_file_paths=[name])
    with pytest.raises(BagError, match="outside the bag: do not trust"):
        open_bag(tmp_path / "bag")
    recover(tmp_path / "bag")
    with open_bag(tmp_path / "bag") as bag:
        assert bag.topics[STATES].count == 1


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    small_bag(tmp_path / "bag").unlink()
    (tmp_path / "bag" / "bag_0.mcap").symlink_to("/dev/zero")
    with pytest.raises(BagError, match=r"bag_0\.mcap is missing"):
        open_bag(tmp_path / "bag")


def test_recovery_writes_through_no_link_that_the_bag_brought(tmp_path: Path) -> None:
    file = small_bag(tmp_path / "bag", 100)
    file.write_bytes(file.read_bytes()[:-20])
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in (f"{file.name}.recovering", "metadata.yaml.tmp"):
        (tmp_path / "bag" / name).symlink_to(victim)
    assert recover(tmp_path / "bag").messages == 100
    assert victim.read_text() == "precious"


def test_a_robots_name_in_a_bag_or_model_is_never_a_path(tmp_path: Path) -> None:
    preset = load_robot("arm6").preset | {"urdf": str(load_robot("arm6").urdf_path)}
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(preset))))
    assert load_robot(tmp_path / "robot.yaml").name == "arm6"
    for name in (str(tmp_path / "robot.yaml"), "../robots/arm6", "."):
        with pytest.raises(RobotError, match="unknown robot"):
            bundled_robot(name)


# Sizes in bags


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_chunk_unpacks_to_what_it_states_and_no_further(compression: str) -> None:
    packed = zstandard.compress(BOMB) if compression == "zstd" else lz4.frame.compress(BOMB)
    assert mcap_limits.unpack(packed, compression, len(BOMB)) == BOMB
    for size in (1000, len(BOMB) - 1, len(BOMB) + 1):
        with pytest.raises(BagError, match=f"does not unpack to the {size} bytes"):
            mcap_limits.unpack(packed, compression, size)
    with pytest.raises(BagError, match="more than the"):
        mcap_limits.unpack(packed, compression, mcap_limits.MAX_CHUNK_BYTES + 1)
    with pytest.raises(BagError, match=r"cannot be unpacked|does not unpack"):
        mcap_limits.unpack(b"damaged" * 10, compression, 1000)


def test_frames_behind_the_first_count_too() -> None:
    packed = zstandard.compress(b"ab") + zstandard.compress(BOMB)
    with pytest.raises(BagError, match="does not unpack to the 2 bytes"):
        mcap_limits.unpack(packed, "zstd", 2)


def lying_bag(path: Path, compression: CompressionType) -> None:
    """A bag whose only chunk, in itself and in the index, states a thousandth of what it unpacks to."""
    with path.open("wb") as stream:
        writer = Writer(stream, compression=compression, chunk_size=1 << 30)
        writer.start(profile="ros2")
        text = typestore.generate_msgdef(STATES_TYPE)[0]
        schema = writer.register_schema(STATES_TYPE, "ros2msg", text.encode())
        channel = writer.register_channel(STATES, "cdr", schema)
        writer.add_message(channel, 1, BOMB, 1)
        writer.finish()
    content = path.read_bytes()
    with path.open("rb") as stream:
        summary = mcap_limits.read_summary(stream)
    assert summary is not None
    stated = struct.pack("<Q", summary.chunks[0].uncompressed_size)
    lie = struct.pack("<Q", len(BOMB) // 1000)
    for place in (content.index(stated), content.rindex(stated)):  # the chunk's head and its entry in the index
        content = content[:place] + lie + content[place + len(lie) :]
    path.write_bytes(content)


@pytest.mark.parametrize("compression", [CompressionType.ZSTD, CompressionType.LZ4])
def test_reading_and_recovering_a_bag_unpack_no_bomb(
    compression: CompressionType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying_bag(tmp_path / "bomb.mcap", compression)
    with open_bag(tmp_path / "bomb.mcap") as bag, pytest.raises(BagError, match=r"bomb\.mcap.*does not unpack to"):
        list(bag.messages())
    with pytest.raises(BagError, match="holds no complete message"):
        recover(tmp_path)


def index(start: int, end: int, size: int) -> ChunkIndex:
    return ChunkIndex(100, 0, "zstd", 100, end, 0, {}, start, size)


def test_too_much_at_once_is_refused_before_anything_is_read() -> None:
    large = mcap_limits.MAX_CHUNK_BYTES
    mcap_limits.check_chunks([index(number, number, large) for number in range(100)])
    with pytest.raises(BagError, match="overlap in time"):
        mcap_limits.check_chunks([index(0, 9, large) for _ in range(5)])
    with pytest.raises(BagError, match="is announced"):
        mcap_limits.check_chunks([index(0, 9, large + 1)])


def test_a_file_that_announces_too_much_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = small_bag(tmp_path / "bag")
    monkeypatch.setattr(mcap_limits, "MAX_CHUNK_BYTES", 10)
    with pytest.raises(BagError, match=rf"{file}: a chunk of \d+ bytes is announced.*do not trust"):
        open_bag(tmp_path / "bag")


@pytest.mark.parametrize("offset", ["summary", "metadata"])
def test_an_index_that_leads_to_a_chunk_unpacks_nothing(offset: str, tmp_path: Path) -> None:
    """The mcap package would unpack what stands there, unbounded."""
    file = small_bag(tmp_path / "bag")
    with file.open("rb") as stream:
        summary = mcap_limits.read_summary(stream)
    assert summary is not None
    chunk = summary.chunks[0].chunk_start_offset
    content = bytearray(file.read_bytes())
    if offset == "summary":
        content[-28:-20] = struct.pack("<Q", chunk)
    else:
        place = content.rindex(struct.pack("<I", len("ropes_ros")) + b"ropes_ros") - 16
        content[place : place + 8] = struct.pack("<Q", chunk)
    file.write_bytes(content)
    called = []
    original = mcap_limits.unpack
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mcap.stream_reader.get_chunk_data_stream", lambda *a, **k: called.append(a))
        patch.setattr(mcap_limits, "unpack", lambda *a: called.append(a) or original(*a))
        try:
            open_bag(tmp_path / "bag").close()
        except BagError as error:
            assert "ropes recover" in str(error)
    assert not called


def rosbags_bag(path: Path, mode: CompressionMode, data: bytes, storage: StoragePlugin) -> None:
    writer = RosbagsWriter(path, version=8, storage_plugin=storage)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection(STATES, STATES_TYPE, typestore=typestore)
        writer.write(connection, 1, data)


def test_messages_compressed_one_by_one_are_read_up_to_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = joint_states_cdr(5, ("a",), np.zeros(1))
    rosbags_bag(tmp_path / "good", CompressionMode.MESSAGE, data, StoragePlugin.SQLITE3)
    with open_bag(tmp_path / "good") as bag:
        assert [message.data for message in bag.messages()] == [data]
    rosbags_bag(tmp_path / "bomb", CompressionMode.MESSAGE, BOMB, StoragePlugin.SQLITE3)
    monkeypatch.setattr(mcap_limits, "MAX_MESSAGE_BYTES", 1 << 20)
    with open_bag(tmp_path / "bomb") as bag, pytest.raises(BagError, match="unpacks to more than the 1048576 bytes"):
        list(bag.messages())


def test_a_bag_compressed_as_a_whole_needs_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = joint_states_cdr(5, ("a",), np.zeros(1))
    rosbags_bag(tmp_path / "bag", CompressionMode.FILE, data, StoragePlugin.SQLITE3)
    with open_bag(tmp_path / "bag") as bag:
        assert [message.data for message in bag.messages()] == [data]
    usage = bags.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(bags.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(BagError, match="more than the folder for temporary files has room for: make room"):
        open_bag(tmp_path / "bag")


def test_more_images_announced_than_there_is_room_for_fill_no_disk(tmp_path: Path) -> None:
    from ropes_ros.bag_images import cached_images

    with BagWriter(tmp_path / "bag", robot="stick") as writer:
        writer.add_topic("/camera/image_raw", "sensor_msgs/msg/Image")
        writer.write("/camera/image_raw", image_cdr(1, np.zeros((48, 64, 3), np.uint8)), 1)
    document = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())
    topics = document["rosbag2_bagfile_information"]["topics_with_message_count"]
    topics[0]["message_count"] = 10**12
    alter_metadata(tmp_path / "bag", topics_with_message_count=topics)
    with open_bag(tmp_path / "bag") as bag, pytest.raises(BagError, match="1000000000000 images of 32x24 need"):
        cached_images(bag, (32, 24), tmp_path / "cache", False, None)


# Images


def png(width: int, height: int) -> bytes:
    """The head of a PNG, and hardly anything behind it."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (head, body, b"IEND")
    )


def test_compressed_images_of_absurd_size_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    small = cv2.imencode(".jpg", np.full((48, 64, 3), 200, np.uint8))[1].tobytes()
    place = small.index(b"\xff\xc0")
    jpeg = small[: place + 5] + struct.pack(">HH", 60000, 60000) + small[place + 9 :]
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("was decoded"))
    for data, size in ((png(30000, 30000), "30000x30000"), (jpeg, "60000x60000")):
        with pytest.raises(RopesError, match=f"camera: a compressed image of {size} pixels is announced"):
            compressed_to_rgb(data, "camera")


@pytest.mark.parametrize("options", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]])
def test_jpegs_of_every_kind_are_decoded(options: list[int]) -> None:
    encoded = cv2.imencode(".jpg", np.full((48, 64, 3), 200, np.uint8), options)[1]
    assert compressed_to_rgb(encoded.tobytes(), "camera").shape == (48, 64, 3)
    assert compressed_to_rgb(b"\xff\xd8\xff" + encoded.tobytes()[2:], "camera").shape == (48, 64, 3), "a fill byte"


@pytest.mark.parametrize("extension", [".bmp", ".tiff", ".webp"])
def test_only_jpeg_and_png_reach_a_decoder(extension: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = cv2.imencode(extension, np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("was decoded"))
    for cut in (data, b"", b"\xff\xd8", b"\xff\xd8\xff\xc0\x00", png(3, 3)[:20], b"\xff\xd8\x00\x00"):
        with pytest.raises(RopesError, match="only JPEG and PNG"):
            compressed_to_rgb(cut, "camera")


# Models


def described() -> dict[str, Any]:
    """Metadata of a sound model."""
    info = Encoder(ROOT / "models" / "arm6").info
    document: dict[str, Any] = json.loads(info.to_json())
    return document


def test_metadata_of_the_shipped_model_passes() -> None:
    pytest.importorskip("onnxruntime")
    document = described()
    assert ModelInfo.from_json(json.dumps(document), Path("m")).camera_size == tuple(document["camera_size"])


@pytest.mark.parametrize(
    "field, value",
    [
        ("camera_size", [MAX_SIDE + 1, 10]),
        ("camera_size", [0, 10]),
        ("camera_size", [10.5, 10]),
        ("camera_size", 5),
        ("joint_names", []),
        ("joint_names", [f"j{number}" for number in range(5000)]),
        ("joint_names", [1, 2, 3, 4, 5, 6]),
        ("lower", [0.0]),
        ("upper", ["x"] * 6),
        ("robot", {"name": "arm6"}),
    ],
)
def test_impossible_metadata_is_refused(field: str, value: object) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(ModelError, match=rf"m\.onnx: its metadata has an impossible (lower|{field})"):
        ModelInfo.from_json(json.dumps({**described(), field: value}), Path("m.onnx"))


def test_metadata_that_nests_without_end_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        ModelInfo.from_json('{"schema_version": ' + "[" * 200_000, Path("m.onnx"))


@pytest.mark.parametrize("place", ["/etc/hostname", "../secret.bin", "weights.bin", "*/_ORT_MEM_ADDR_/*"])
def test_a_model_that_reads_other_files_is_refused(place: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = onnx.load(str(ROOT / "models" / "arm6" / "model.onnx"))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    write_model(model.SerializeToString(), tmp_path)
    with pytest.raises(ModelError, match="keeps weights in other files"):
        Encoder(tmp_path)


def test_the_other_spellings_of_the_same_key_are_seen_too(tmp_path: Path) -> None:
    content = (ROOT / "models" / "arm6" / "model.onnx").read_bytes()
    for tag in (b"\x0a", b"\x8a\x00", b"\x8a\x80\x80\x00"):
        for length in (b"\x08", b"\x88\x00", b"\x88\x80\x80\x80\x00"):
            write_model(content + tag + length + b"location", tmp_path)
            with pytest.raises(ModelError, match="keeps weights in other files"):
                Encoder(tmp_path)


def test_a_model_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "model.onnx").open("wb") as stream:
        stream.truncate(5 << 30)
    with pytest.raises(ModelError, match="5368709120 bytes are more than"):
        Encoder(tmp_path)


def write_model(content: bytes, folder: Path) -> None:
    (folder / "model.onnx").write_bytes(content)
    (folder / "card.md").write_text(f"SHA-256 of model.onnx: `{file_sha256(folder / 'model.onnx')}`")


# Terminals


def test_names_from_files_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable("a\x1b]0;title\x07b\u202e") == "a?]0;title?b?"
    print_facts({"robot [/bold]": "\x1b[2J[/red]", "topic": "[link=https://example.org]x[/link]"})
    print_table(["topic"], [["[/bold]\x1b[31m"]])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "[/red]" in shown and "[/bold]" in shown
