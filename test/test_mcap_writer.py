"""The MCAP writer: what the mcap package's reader makes of its files, and what it compresses."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from mcap.reader import make_reader

from ropes_ros import mcap_writer
from ropes_ros.bag_writer import StorageFile
from ropes_ros.mcap_writer import CHUNK_BYTES, McapWriter


class Memory:
    """A file in memory."""

    def __init__(self) -> None:
        self.content = b""

    def write(self, pieces: Sequence[bytes | bytearray]) -> int:
        joined = b"".join(pieces)
        self.content += joined
        return len(joined)


def begun(compression: str) -> tuple[Memory, McapWriter, int]:
    """A file with one channel."""
    memory = Memory()
    writer = McapWriter(memory, compression=compression)
    writer.start(library="test")
    schema = writer.register_schema("a/msg/B", "ros2msg", b"int32 c")
    return memory, writer, writer.register_channel("/b", "cdr", schema, {"key": "value"})


@pytest.mark.parametrize("compression", ["auto", "zstd", "lz4", "none"])
def test_the_mcap_package_reads_what_was_written(compression: str) -> None:
    """Small messages and large ones, in and out of order, chunks and metadata; checksums included."""
    memory, writer, channel = begun(compression)
    sizes = (0, 5, 1000, 1 << 14, 100_000, 7, CHUNK_BYTES + 1, 3, 50_000)
    sent = [(100 - number if number == 5 else 10 * number, os.urandom(size)) for number, size in enumerate(sizes)]
    for number, (time_ns, data) in enumerate(sent):
        writer.add_message(channel, time_ns, data, time_ns + 1, number)
        if number == 2:
            writer.flush()
            writer.add_metadata("note", {"a": "b"})
    writer.finish()
    assert writer.size == len(memory.content)
    reader = make_reader(io.BytesIO(memory.content), validate_crcs=True)
    read = [
        (message.log_time, message.publish_time, message.sequence, message.data)
        for _, _, message in reader.iter_messages()
    ]
    expected = [(time_ns, time_ns + 1, number, data) for number, (time_ns, data) in enumerate(sent)]
    assert read == sorted(expected)
    summary = reader.get_summary()
    assert summary is not None and summary.statistics is not None
    statistics = summary.statistics
    assert (statistics.message_count, statistics.chunk_count) == (len(sizes), 3)
    assert (statistics.message_start_time, statistics.message_end_time) == (0, 95)
    assert summary.channels[channel].metadata == {"key": "value"}
    assert [(record.name, record.metadata) for record in reader.iter_metadata()] == [("note", {"a": "b"})]


def test_auto_compresses_what_comes_slowly_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(mcap_writer.time, "monotonic", lambda: now)
    memory, writer, channel = begun("auto")
    for seconds in (0.5, 0.01, 0.5):
        now += seconds
        writer.add_message(channel, int(now * 1e9), bytes(1_000_000), 0, 0)
        writer.flush()
    writer.finish()
    summary = make_reader(io.BytesIO(memory.content)).get_summary()
    assert summary is not None
    assert [index.compression for index in summary.chunk_indexes] == ["zstd", "", "zstd"]


def test_a_disk_that_takes_less_than_it_is_given_gets_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writev = os.writev
    monkeypatch.setattr(os, "writev", lambda file, views: writev(file, [views[0][:7]]))
    file = StorageFile(tmp_path / "file")
    pieces = [os.urandom(size) for size in (3, 20, 0, 7, 14)]
    assert file.write(pieces) == 44
    file.close()
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)
