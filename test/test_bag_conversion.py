"""Metadata for rosbag2 of Humble: that form, and the bag is what it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from command import ropes
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from synthetic import joint_states_cdr, typestore

from ropes_ros.bag_conversion import rewrite_for_humble
from ropes_ros.bags import BagWriter, Losses, OfferedQos, open_bag, recover
from ropes_ros.errors import BagError

STATES, STATES_TYPE = "/joint_states", "sensor_msgs/msg/JointState"


def information(path: Path) -> dict[str, object]:
    return dict(yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"])


def write(path: Path) -> list[bytes]:
    sent = [joint_states_cdr(number, ("a",), np.array([0.1 * number])) for number in range(5)]
    with BagWriter(path, robot="stick", schedule_yaml="a: 1\n", schedule_hash="abc") as writer:
        writer.add_topic(STATES, STATES_TYPE, OfferedQos(reliable=False, transient_local=True, depth=7))
        for number, data in enumerate(sent):
            writer.write(STATES, data, 1000 + number)
        writer.note_losses(STATES, Losses(transport=2))
    return sent


def test_humble_gets_version_five_and_nothing_newer(tmp_path: Path) -> None:
    sent = write(tmp_path / "bag")
    before = information(tmp_path / "bag")
    with open_bag(tmp_path / "bag") as bag:
        header = bag.header
    with ropes(tmp_path, "bag", "--for", "humble", tmp_path / "bag") as command:
        assert command.end() == 0, command.err
    after = information(tmp_path / "bag")
    assert after["version"] == 5
    assert not {"custom_data", "ros_distro"} & set(after)
    for name in ("storage_identifier", "duration", "starting_time", "message_count", "relative_file_paths", "files"):
        assert after[name] == before[name]
    (topic,) = after["topics_with_message_count"]  # type: ignore[misc]
    assert set(topic["topic_metadata"]) == {"name", "type", "serialization_format", "offered_qos_profiles"}
    (profile,) = yaml.safe_load(topic["topic_metadata"]["offered_qos_profiles"])
    named = ("history", "depth", "reliability", "durability", "liveliness")
    assert [profile[name] for name in named] == [1, 7, 2, 1, 1]  # rmw's numbers: rmw/types.h
    with AnyReader([tmp_path / "bag"]) as reader:
        assert [data for _, _, data in reader.messages()] == sent
    with open_bag(tmp_path / "bag") as bag:
        assert bag.header == header
    assert not rewrite_for_humble(tmp_path / "bag")
    assert recover(tmp_path / "bag").rebuilt == () and information(tmp_path / "bag") == after


def test_a_bag_from_elsewhere_is_rewritten_too(tmp_path: Path) -> None:
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection(STATES, STATES_TYPE, typestore=typestore)
        writer.write(connection, 1, joint_states_cdr(0, ("a",), np.zeros(1)))
    assert rewrite_for_humble(tmp_path / "bag")
    assert information(tmp_path / "bag")["version"] == 5
    with open_bag(tmp_path / "bag") as bag:
        assert len(list(bag.messages())) == 1


def test_a_bag_that_was_cut_off_is_not_rewritten(tmp_path: Path) -> None:
    write(tmp_path / "bag")
    (file,) = (tmp_path / "bag").glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-10])
    before = information(tmp_path / "bag")
    with pytest.raises(BagError, match="ropes recover"):
        rewrite_for_humble(tmp_path / "bag")
    assert information(tmp_path / "bag") == before
