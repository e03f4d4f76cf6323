"""Chunks read one by one: the same messages as the bag's reader gives, and no more memory or time than they state."""

from __future__ import annotations

from pathlib import Path

import pytest
from mcap.records import ChunkIndex

from ropes_ros import bag_parts
from ropes_ros.bag_parts import Part, parts, samples
from ropes_ros.bags import TOPICS, BagWriter, open_bag
from ropes_ros.errors import BagError
from ropes_ros.mcap_chunks import ChunkReader, messages_indexed
from ropes_ros.mcap_limits import read_summary

TYPES = {
    TOPICS["image"]: "sensor_msgs/msg/Image",
    TOPICS["regime"]: "diagnostic_msgs/msg/DiagnosticArray",
    TOPICS["joint_states"]: "sensor_msgs/msg/JointState",
}
CHOSEN = [TOPICS["image"], TOPICS["regime"]]


def write_bag(path: Path, compression: str, images: int = 40) -> Path:
    """A bag of several chunks, with messages of three topics; its storage file."""
    with BagWriter(path, robot="stick", compression=compression) as writer:
        for topic, type_name in TYPES.items():
            writer.add_topic(topic, type_name)
        for number in range(images):
            noise = bytes((number * step) % 251 for step in range(1000)) * 400
            writer.write(TOPICS["joint_states"], b"\x00\x01\x00\x00" + bytes(9), number)
            writer.write(TOPICS["image"], b"\x00\x01\x00\x00" + noise, number)
            if number % 3 == 0:
                writer.write(TOPICS["regime"], number.to_bytes(8, "little"), number)
    (file,) = path.glob("*.mcap")
    return file


def chunks_of(file: Path) -> list[ChunkIndex]:
    with file.open("rb") as stream:
        summary = read_summary(stream)
    assert summary is not None
    return summary.chunks


def read(part: Part, reader: ChunkReader) -> list[tuple[int, str, bytes]]:
    return [(message.log_time_ns, message.topic, bytes(message.data)) for message in part.read(reader)]


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_parts_together_are_the_chosen_messages_and_what_the_index_counts(tmp_path: Path, compression: str) -> None:
    write_bag(tmp_path / "bag", compression)
    reader = ChunkReader()
    with open_bag(tmp_path / "bag") as bag:
        expected = sorted((entry.log_time_ns, entry.topic, entry.data) for entry in bag.messages(CHOSEN))
        found = []
        for part in parts(bag, CHOSEN):
            messages = read(part, reader)
            for topic in CHOSEN:
                assert part.counts[topic] == sum(message[1] == topic for message in messages)
            found += messages
        assert len({part.read for part in parts(bag, CHOSEN)}) > 1  # several chunks
    assert sorted(found) == expected and len(expected) == 54


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_samples_are_spread_over_the_bag(tmp_path: Path, compression: str) -> None:
    write_bag(tmp_path / "bag", compression)
    reader = ChunkReader()
    with open_bag(tmp_path / "bag") as bag:
        of_all = {entry.log_time_ns: entry.data for entry in bag.messages([TOPICS["image"]])}
        for wanted in (1, 3, 20, 40, 99):
            found = [message for part in samples(bag, TOPICS["image"], wanted) for message in read(part, reader)]
            times = [time for time, *_ in found]
            assert len(set(times)) == len(times) == min(wanted, 40)
            assert all(of_all[time] == data for time, _, data in found)
            if wanted >= 3:
                assert min(times) < 5 and max(times) >= 25


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_a_damaged_chunk_is_told(tmp_path: Path, compression: str) -> None:
    file = write_bag(tmp_path / "bag", compression)
    chunk = chunks_of(file)[1]
    content = bytearray(file.read_bytes())
    middle = chunk.chunk_start_offset + chunk.chunk_length - chunk.compressed_size // 2
    content[middle] ^= 0x55
    file.write_bytes(content)
    reader = ChunkReader()
    with open_bag(tmp_path / "bag") as bag:
        there = list(parts(bag, CHOSEN))
        read(there[0], reader)
        with pytest.raises(BagError, match=r"bag is damaged .*ropes recover"):
            read(there[1], reader)
        assert read(there[0], reader)  # and the reader is as good as before


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_an_index_that_does_not_fit_the_chunk_is_told(tmp_path: Path, compression: str) -> None:
    file = write_bag(tmp_path / "bag", compression)
    chunk = chunks_of(file)[0]
    for changes in (
        {"chunk_start_offset": chunk.chunk_start_offset + 1},
        {"chunk_start_offset": file.stat().st_size},
        {"uncompressed_size": chunk.uncompressed_size + 1},
        {"compressed_size": chunk.compressed_size - 1},
        {"compression": "rle"},
    ):
        wrong = ChunkIndex(**{**vars(chunk), **changes})
        with pytest.raises(BagError, match=r"not where the index says|missing"):
            list(ChunkReader().messages(file, wrong, {1, 2, 3}))


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("change", [-1, 1])
def test_a_chunk_that_states_another_size_than_it_has_is_told(
    tmp_path: Path, compression: str, change: int
) -> None:
    """The chunk's own head lies as its index does."""
    file = write_bag(tmp_path / "bag", compression)
    chunk = chunks_of(file)[0]
    stated = chunk.uncompressed_size + change
    content = bytearray(file.read_bytes())
    place = chunk.chunk_start_offset + 9 + 16
    content[place : place + 8] = stated.to_bytes(8, "little")
    file.write_bytes(content)
    with pytest.raises(BagError, match=r"cut short|the size that it states|checksum"):
        list(ChunkReader().messages(file, ChunkIndex(**{**vars(chunk), "uncompressed_size": stated}), {1, 2, 3}))


def test_bags_with_large_chunks_are_read_message_by_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that threads do not hold several of them."""
    write_bag(tmp_path / "bag", "lz4")
    with open_bag(tmp_path / "bag") as bag:
        of_chunks = [message for part in parts(bag, CHOSEN) for message in read(part, ChunkReader())]
        monkeypatch.setattr(bag_parts, "_LARGEST", 1 << 20)
        singly = list(parts(bag, CHOSEN))
        assert [sum(part.counts.values()) for part in singly] == [1] * 54
        assert sorted(message for part in singly for message in read(part, ChunkReader())) == sorted(of_chunks)


def test_counts_of_a_chunk_without_index_are_unknown(tmp_path: Path) -> None:
    chunk = chunks_of(write_bag(tmp_path / "bag", "none"))[0]
    assert sum(messages_indexed(chunk).values()) > 3
    assert messages_indexed(ChunkIndex(**{**vars(chunk), "message_index_offsets": {}})) == {}
