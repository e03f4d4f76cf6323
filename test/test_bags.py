"""Bags: what goes in comes out, whatever happens to the process that writes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from synthetic import draw, header, image_cdr, joint_states_cdr, message, serialize, typestore

from ropes_ros import bag_writer
from ropes_ros.bag_format import BagHeader
from ropes_ros.bags import RECOVERED, TOPICS, BagWriter, Losses, OfferedQos, open_bag, recover
from ropes_ros.errors import BagError

IMAGE = TOPICS["image"]
IMAGE_TYPE = "sensor_msgs/msg/Image"
PERIOD_NS = 33_333_333


def picture(number: int) -> bytes:
    """An image message that differs from every other."""
    pixels = draw(np.array([0.01 * number, 0.5]), (64, 48))
    pixels[0, 0] = number % 256
    return image_cdr(number * PERIOD_NS, pixels)


def write_images(path: Path, count: int) -> list[bytes]:
    sent = [picture(number) for number in range(count)]
    with BagWriter(path, robot="arm6", flush_period_s=0.0) as writer:
        writer.add_topic(IMAGE, IMAGE_TYPE)
        for number, cdr in enumerate(sent):
            writer.write(IMAGE, cdr, 1 + number * PERIOD_NS)
    return sent


def read_images(path: Path) -> list[bytes]:
    with open_bag(path) as bag:
        return [entry.data for entry in bag.messages([IMAGE])]


def chunk_end(file: Path, number: int) -> int:
    """Offset of the last byte of a chunk, which is compressed message data."""
    with file.open("rb") as stream:
        summary = make_reader(stream).get_summary()
    assert summary is not None
    index = summary.chunk_indexes[number]
    return index.chunk_start_offset + index.chunk_length - 1


def storage(path: Path) -> Path:
    (file,) = path.glob("*.mcap")
    return file


@pytest.mark.parametrize("compression", ["zstd", "lz4", "none"])
def test_rosbags_reads_the_same_bytes_at_the_same_times(tmp_path: Path, compression: str) -> None:
    sent = [(IMAGE, 5_000 + number * 7, picture(number)) for number in range(20)] + [
        (
            TOPICS["joint_states"],
            5_003 + number * 7,
            joint_states_cdr(number, ("a", "b"), np.array([0.1, number])),
        )
        for number in range(20)
    ]
    sent.sort(key=lambda entry: entry[1])
    with BagWriter(tmp_path / "bag", robot="arm6", compression=compression) as writer:
        writer.add_topic(IMAGE, IMAGE_TYPE, OfferedQos(reliable=False, depth=5))
        for topic, time_ns, cdr in sent:
            if topic not in writer.counts:
                writer.add_topic(topic, "sensor_msgs/msg/JointState")
            writer.write(topic, cdr, time_ns)
    with AnyReader([tmp_path / "bag"]) as reader:
        received = [(connection.topic, time_ns, data) for connection, time_ns, data in reader.messages()]
        for connection in reader.connections:
            assert connection.digest == typestore.hash_rihs01(connection.msgtype)
        last = reader.deserialize(received[-1][2], "sensor_msgs/msg/JointState")
    assert received == sent
    assert last.position.tolist() == [0.1, 19.0]  # type: ignore[attr-defined]


def test_metadata_is_what_rosbag2_version_9_asks_for(tmp_path: Path) -> None:
    with BagWriter(
        tmp_path / "bag", robot="arm6", schedule_yaml="a: 1\nb: 2\n", schedule_hash="abc"
    ) as writer:
        writer.add_topic(IMAGE, IMAGE_TYPE, OfferedQos(reliable=False, transient_local=True, depth=3))
        writer.add_topic("/quiet", "sensor_msgs/msg/JointState")
        writer.write(IMAGE, picture(0), 1_000)
        writer.write(IMAGE, picture(1), 3_500)
        writer.note_losses(IMAGE, Losses(gaps=3, transport=2, queue=1))
    information = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())[
        "rosbag2_bagfile_information"
    ]
    assert information["version"] == 9
    assert information["storage_identifier"] == "mcap"
    assert information["starting_time"] == {"nanoseconds_since_epoch": 1_000}
    assert information["duration"] == {"nanoseconds": 2_500}
    assert information["message_count"] == 2
    assert information["relative_file_paths"] == [storage(tmp_path / "bag").name]
    (file,) = information["files"]
    assert (file["path"], file["message_count"]) == (storage(tmp_path / "bag").name, 2)
    image, quiet = information["topics_with_message_count"]
    assert (image["message_count"], quiet["message_count"]) == (2, 0)
    assert image["topic_metadata"]["type_description_hash"].startswith("RIHS01_")
    (profile,) = image["topic_metadata"]["offered_qos_profiles"]
    assert (profile["reliability"], profile["durability"], profile["history"], profile["depth"]) == (
        "best_effort",
        "transient_local",
        "keep_last",
        3,
    )
    assert information["custom_data"]["ropes_ros.schedule"] == "a: 1\nb: 2\n"
    with open_bag(tmp_path / "bag") as bag:
        losses = {IMAGE: Losses(3, 2, 1)}
        rates = {IMAGE: 400_000.0, "/quiet": 0.0}
        assert bag.header == BagHeader("arm6", "a: 1\nb: 2\n", "abc", TOPICS, "complete", {IMAGE: 4}, losses, rates)
        assert (bag.start_ns, bag.end_ns) == (1_000, 3_500)


def test_header_is_in_the_storage_file_too(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag", robot="arm6", schedule_yaml="a: 1\n", schedule_hash="abc") as writer:
        writer.add_topic(IMAGE, IMAGE_TYPE)
        writer.write(IMAGE, picture(0), 1)
        writer.note_losses(IMAGE, Losses(gaps=2))
    with storage(tmp_path / "bag").open("rb") as stream:
        records = {record.name: record.metadata for record in make_reader(stream).iter_metadata()}
    assert records["ropes_ros"]["schedule"] == "a: 1\n"
    assert records["ropes_ros_end"]["counts"] == f'{{"{IMAGE}": 1}}'
    assert records["ropes_ros_end"]["drops"] == f'{{"{IMAGE}": 2}}'
    with open_bag(storage(tmp_path / "bag")) as bag:
        assert bag.header is not None
        assert (bag.header.robot, bag.header.schedule_hash) == ("arm6", "abc")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    sent = write_images(tmp_path / "bag", 3)
    with pytest.raises(BagError, match="exists already"):
        BagWriter(tmp_path / "bag", robot="arm6")
    assert read_images(tmp_path / "bag") == sent


def test_misuse_of_the_writer_is_refused(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag", robot="arm6") as writer:
        with pytest.raises(BagError, match="/nowhere was not announced"):
            writer.write("/nowhere", b"", 1)
        writer.add_topic(IMAGE, IMAGE_TYPE)
        with pytest.raises(BagError, match="added already"):
            writer.add_topic(IMAGE, IMAGE_TYPE)
        with pytest.raises(BagError, match=r"no_msgs/msg/Nothing.*not known"):
            writer.add_topic("/strange", "no_msgs/msg/Nothing")
        with pytest.raises(BagError, match="negative time"):
            writer.write(IMAGE, picture(0), -1)
        writer.write(IMAGE, picture(0), 1)
    with pytest.raises(BagError, match="closed"):
        writer.write(IMAGE, picture(0), 1)
    with pytest.raises(BagError, match="compression 'zip'"):
        BagWriter(tmp_path / "other", robot="arm6", compression="zip")
    assert not (tmp_path / "other").exists()


def _record_until_killed(path: Path, flushed: multiprocessing.Queue[int]) -> None:
    writer = BagWriter(path, robot="arm6", fsync=True)
    writer.add_topic(IMAGE, IMAGE_TYPE)
    number = 0
    while True:
        writer.write(IMAGE, picture(number), 1 + number * PERIOD_NS)
        number += 1
        flushed.put(number)
        time.sleep(1 / 30)


def test_kill_loses_at_most_one_second(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    written: multiprocessing.Queue[int] = context.Queue()
    process = context.Process(target=_record_until_killed, args=(tmp_path / "bag", written))
    process.start()
    try:
        while written.get(timeout=30) < 60:
            pass
    finally:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    with pytest.raises(BagError, match="ropes recover"):
        open_bag(tmp_path / "bag")
    result = recover(tmp_path / "bag")
    recovered = read_images(tmp_path / "bag")
    assert recovered == [picture(number) for number in range(len(recovered))]
    assert len(recovered) >= 60 - 30
    assert result.messages == len(recovered)
    with open_bag(tmp_path / "bag") as bag:
        assert bag.header is not None and bag.header.state == RECOVERED
    assert recover(tmp_path / "bag").rebuilt == ()


@pytest.mark.parametrize("share", [0.15, 0.5, 0.77, 0.999])
def test_truncated_file_recovers_a_prefix(tmp_path: Path, share: float) -> None:
    sent = write_images(tmp_path / "bag", 40)
    file = storage(tmp_path / "bag")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(BagError, match=r"cut off.*ropes recover"):
        open_bag(tmp_path / "bag")
    result = recover(tmp_path / "bag")
    recovered = read_images(tmp_path / "bag")
    assert recovered == sent[: len(recovered)]
    assert len(recovered) >= int(40 * share) - 6  # the file ends with its index
    assert result.messages == len(recovered)
    assert sorted(entry.name for entry in (tmp_path / "bag").iterdir()) == [file.name, "metadata.yaml"]


def test_recovery_skips_a_damaged_chunk(tmp_path: Path) -> None:
    sent = write_images(tmp_path / "bag", 20)
    file = storage(tmp_path / "bag")
    content = bytearray(file.read_bytes())
    end = chunk_end(file, 9)
    content[end - 40 : end] = bytes(40)
    file.write_bytes(content[:-20])
    result = recover(tmp_path / "bag")
    recovered = read_images(tmp_path / "bag")
    assert recovered == sent[:9] + sent[10:]
    assert result.lost_bytes > 0


def test_recovery_goes_on_behind_damage_and_keeps_the_original(tmp_path: Path) -> None:
    """Four chunks with their heads are gone, and the rest of the file says nothing of where the next record begins."""
    sent = write_images(tmp_path / "bag", 20)
    file = storage(tmp_path / "bag")
    content = bytearray(file.read_bytes())
    begin, end = chunk_end(file, 5) - 30, chunk_end(file, 9) - 5
    content[begin:end] = np.random.default_rng(0).integers(0, 256, end - begin, dtype=np.uint8).tobytes()
    file.write_bytes(content)
    result = recover(tmp_path / "bag")
    assert read_images(tmp_path / "bag") == sent[:5] + sent[10:]
    kept = file.with_name(file.name + ".damaged")
    assert result.kept == (kept,) and kept.read_bytes() == content
    assert end - begin <= result.lost_bytes < 2 * (end - begin)
    assert recover(tmp_path / "bag").rebuilt == ()


def test_recovery_of_next_to_nothing_leaves_the_file(tmp_path: Path) -> None:
    write_images(tmp_path / "bag", 3)
    file = storage(tmp_path / "bag")
    beginning = file.read_bytes()[:40]
    file.write_bytes(beginning)
    with pytest.raises(BagError, match="no complete message"):
        recover(tmp_path / "bag")
    assert file.read_bytes() == beginning
    assert [entry.name for entry in (tmp_path / "bag").glob("*.recovering")] == []


def test_recovery_rebuilds_lost_metadata(tmp_path: Path) -> None:
    sent = write_images(tmp_path / "bag", 5)
    metadata = tmp_path / "bag" / "metadata.yaml"
    before = yaml.safe_load(metadata.read_text())
    metadata.unlink()
    with pytest.raises(BagError, match="ropes recover"):
        open_bag(tmp_path / "bag")
    recover(tmp_path / "bag")
    assert read_images(tmp_path / "bag") == sent
    assert yaml.safe_load(metadata.read_text()) == before


def test_recovery_leaves_a_running_recording_alone(tmp_path: Path) -> None:
    writer = BagWriter(tmp_path / "bag", robot="arm6")
    writer.add_topic(IMAGE, IMAGE_TYPE)
    writer.write(IMAGE, picture(0), 1)
    writer.flush()
    with pytest.raises(BagError, match="being recorded"):
        recover(tmp_path / "bag")
    writer.write(IMAGE, picture(1), 2)
    writer.close()
    assert len(read_images(tmp_path / "bag")) == 2


def test_full_disk_gives_one_error_and_keeps_what_was_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = 60_000

    class SmallDisk(bag_writer.StorageFile):
        written = 0

        def write(self, pieces: Sequence[bytes]) -> int:
            data = b"".join(pieces)
            if self.written + len(data) > room:
                super().write([data[: room - self.written]])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.written += len(data)
            return super().write([data])

    monkeypatch.setattr(bag_writer, "StorageFile", SmallDisk)
    writer = BagWriter(tmp_path / "bag", robot="arm6", flush_period_s=0.0)
    writer.add_topic(IMAGE, IMAGE_TYPE)
    rng = np.random.default_rng(0)
    sent: list[bytes] = []
    with pytest.raises(BagError, match=r"bag cannot be written \(No space left.*ropes recover") as caught:
        while len(sent) < 100:
            sent.append(image_cdr(len(sent), rng.integers(0, 256, (48, 64, 3)).astype(np.uint8)))
            writer.write(IMAGE, sent[-1], len(sent))
    assert "\n" not in str(caught.value)
    with pytest.raises(BagError, match="closed"):
        writer.flush()
    monkeypatch.undo()
    recover(tmp_path / "bag")
    recovered = read_images(tmp_path / "bag")
    assert recovered == sent[: len(recovered)]
    assert len(recovered) == len(sent) - 1


def test_an_exception_while_writing_leaves_a_recoverable_bag(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), BagWriter(tmp_path / "bag", robot="arm6") as writer:
        writer.add_topic(IMAGE, IMAGE_TYPE)
        writer.write(IMAGE, picture(0), 1)
        writer.flush()
        raise RuntimeError
    with pytest.raises(BagError, match="ropes recover"):
        open_bag(tmp_path / "bag")
    assert recover(tmp_path / "bag").messages == 1


def write_foreign(path: Path, plugin: StoragePlugin) -> list[bytes]:
    """A bag as another program would write it: no header, other topic names."""
    sent = [picture(number) for number in range(4)]
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        connection = writer.add_connection("/cam0/image", IMAGE_TYPE, typestore=typestore)
        for number, cdr in enumerate(sent):
            writer.write(connection, number + 1, cdr)
    return sent


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_bags_from_elsewhere_are_read_with_a_topic_map(tmp_path: Path, plugin: StoragePlugin) -> None:
    sent = write_foreign(tmp_path / "bag", plugin)
    with open_bag(tmp_path / "bag") as bag:
        assert bag.header is None
        with pytest.raises(BagError, match=r"no topic /camera/image_raw \(image\); it has: /cam0/image"):
            bag.topic("image")
        with pytest.raises(BagError, match="holds no schedule"):
            _ = bag.schedule
    with open_bag(tmp_path / "bag", topics={"image": "/cam0/image"}) as bag:
        assert [entry.data for entry in bag.messages([bag.topic("image")])] == sent


def test_foreign_bag_is_recovered_with_its_custom_data(tmp_path: Path) -> None:
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        writer.set_custom_data("owner", "somebody")
        connection = writer.add_connection("/cam0/image", IMAGE_TYPE, typestore=typestore)
        for number in range(60):
            cdr = np.random.default_rng(number).bytes(100_000)
            writer.write(connection, number + 1, serialize(header(number)) + cdr)
    file = tmp_path / "bag" / "bag.mcap"
    file.write_bytes(file.read_bytes()[:-3_000_000])
    assert 0 < recover(tmp_path / "bag").messages < 60
    with open_bag(tmp_path / "bag") as bag:
        assert bag.header is None
        assert len(list(bag.messages())) == bag.topics["/cam0/image"].count
    information = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())[
        "rosbag2_bagfile_information"
    ]
    assert information["custom_data"] == {"owner": "somebody"}


def test_errors_name_the_path_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"nothing does not exist"):
        open_bag(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BagError, match=r"empty is not a bag"):
        open_bag(tmp_path / "empty")
    with pytest.raises(BagError, match=r"empty holds no .mcap file"):
        recover(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BagError, match=r"notes.txt is not a bag"):
        open_bag(tmp_path / "notes.txt")
    (tmp_path / "empty" / "metadata.yaml").write_text("rosbag2_bagfile_information: [")
    with pytest.raises(BagError, match=r"metadata.yaml is not a rosbag2 metadata file"):
        open_bag(tmp_path / "empty")


def test_unknown_schema_version_says_which_are_read(tmp_path: Path) -> None:
    write_images(tmp_path / "bag", 2)
    metadata = tmp_path / "bag" / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("schema_version: '1'", "schema_version: '7'"))
    with pytest.raises(BagError, match=r"schema version 7 is unknown.*reads 1"):
        open_bag(tmp_path / "bag")


def test_missing_file_and_silent_topic_are_named(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag", robot="arm6") as writer:
        writer.add_topic(IMAGE, IMAGE_TYPE)
    with (
        open_bag(tmp_path / "bag") as bag,
        pytest.raises(BagError, match=f"no message was recorded on {IMAGE}"),
    ):
        bag.topic("image")
    storage(tmp_path / "bag").unlink()
    with pytest.raises(BagError, match=r"bag_0.mcap is missing"):
        open_bag(tmp_path / "bag")


def test_a_flipped_byte_is_noticed_when_reading_and_cut_out_by_recovery(tmp_path: Path) -> None:
    sent = write_images(tmp_path / "bag", 20)
    file = storage(tmp_path / "bag")
    content = bytearray(file.read_bytes())
    content[chunk_end(file, 9) - 10] ^= 0xFF
    file.write_bytes(content)
    with open_bag(tmp_path / "bag") as bag, pytest.raises(BagError, match="ropes recover"):
        list(bag.messages())
    assert recover(tmp_path / "bag").rebuilt == (file.name,)
    assert read_images(tmp_path / "bag") == sent[:9] + sent[10:]


def test_bytes_that_are_no_message_give_a_bag_error(tmp_path: Path) -> None:
    write_images(tmp_path / "bag", 1)
    with open_bag(tmp_path / "bag") as bag, pytest.raises(BagError, match="cannot be read"):
        bag.deserialize(b"\x00\x01\x00\x00\xff\xff", IMAGE_TYPE)


def test_content_hash_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    write_images(tmp_path / "bag", 2)
    with open_bag(tmp_path / "bag") as bag:
        assert bag.content_hash() == hashlib.sha256(storage(tmp_path / "bag").read_bytes()).hexdigest()


def test_float_array_commands_without_header_are_stored(tmp_path: Path) -> None:
    layout = message("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
    command = serialize(message("std_msgs/msg/Float64MultiArray", layout=layout, data=np.array([1.0, 2.0])))
    with BagWriter(tmp_path / "bag", robot="arm6") as writer:
        writer.add_topic(TOPICS["joint_command"], "std_msgs/msg/Float64MultiArray")
        writer.write(TOPICS["joint_command"], command, 77)
    with open_bag(tmp_path / "bag") as bag:
        (entry,) = bag.messages([bag.topic("joint_command")])
        assert entry.log_time_ns == 77
        assert bag.deserialize(entry.data, "std_msgs/msg/Float64MultiArray").data.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("damage", [{"relative_file_paths": 5}, {"custom_data": 7}, {"custom_data": ["a"]}])
def test_metadata_of_the_wrong_kind_is_refused_and_recovered(tmp_path: Path, damage: dict[str, object]) -> None:
    with BagWriter(tmp_path / "bag", robot="stick") as writer:
        writer.add_topic("/joint_states", "sensor_msgs/msg/JointState")
        writer.write("/joint_states", joint_states_cdr(1, ("a",), np.zeros(1)), 1)
    metadata = tmp_path / "bag" / "metadata.yaml"
    document = yaml.safe_load(metadata.read_text())
    document["rosbag2_bagfile_information"].update(damage)
    metadata.write_text(yaml.safe_dump(document))
    with pytest.raises(BagError, match="is not a rosbag2 metadata file: run `ropes recover"):
        open_bag(tmp_path / "bag")
    recover(tmp_path / "bag")
    with open_bag(tmp_path / "bag") as bag:
        assert bag.header is not None and bag.header.robot == "stick"
