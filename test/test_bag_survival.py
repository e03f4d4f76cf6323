"""Bags that were cut off or damaged anywhere: what is whole is read, nothing crashes, hangs or fills the memory."""

from __future__ import annotations

import multiprocessing
import resource
import shutil
from pathlib import Path
from random import Random

import numpy as np
import pytest
from mcap.reader import make_reader
from synthetic import joint_states_cdr

from ropes_ros.bags import BagWriter, open_bag, recover
from ropes_ros.errors import BagError, RopesError

STATES, STATES_TYPE = "/joint_states", "sensor_msgs/msg/JointState"
CHUNKS, EACH = 12, 3
FUZZED = 400
FUZZ_S = 240.0
"""Longest that all damaged bags together may take before it counts as a hang."""
FUZZ_BYTES = 64 << 20
"""What reading and mending bags of some 20 kB may take of memory beyond what sound ones take."""


def message(number: int) -> bytes:
    return joint_states_cdr(number, ("a", "b"), np.random.default_rng(number).normal(size=40))


def write(path: Path, compression: str = "none") -> tuple[Path, list[bytes]]:
    """A bag of several chunks: its storage file, and its messages."""
    sent = [message(number) for number in range(CHUNKS * EACH)]
    with BagWriter(path, robot="stick", compression=compression) as writer:
        writer.add_topic(STATES, STATES_TYPE)
        for number, data in enumerate(sent):
            writer.write(STATES, data, number + 1)
            if number % EACH == EACH - 1:
                writer.flush()
    (file,) = path.glob("*.mcap")
    return file, sent


def read(path: Path) -> list[bytes]:
    with open_bag(path) as bag:
        return [entry.data for entry in bag.messages()]


def chunk_ends(file: Path) -> list[int]:
    with file.open("rb") as stream:
        summary = make_reader(stream).get_summary()
    assert summary is not None
    return [index.chunk_start_offset + index.chunk_length for index in summary.chunk_indexes]


def contents(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.iterdir()}


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_bag_cut_off_at_any_byte_keeps_all_whole_chunks(tmp_path: Path, compression: str) -> None:
    """At every chunk's boundary, beside it, and at random bytes."""
    file, sent = write(tmp_path / "bag", compression)
    whole, ends = file.read_bytes(), chunk_ends(file)
    assert len(ends) == CHUNKS
    random = Random(0)
    cuts = {end + shift for end in ends for shift in (-1, 0, 1)} | {random.randrange(len(whole)) for _ in range(60)}
    for cut in sorted(cuts):
        file.write_bytes(whole[:cut])
        kept = EACH * sum(end <= cut for end in ends)
        if kept == 0:
            with pytest.raises(BagError, match="no complete message"):
                recover(tmp_path / "bag")
            assert file.read_bytes() == whole[:cut]
            continue
        assert recover(tmp_path / "bag").messages == kept
        assert read(tmp_path / "bag") == sent[:kept]


@pytest.mark.parametrize("chunks", [1, 5, 11])
def test_blocks_that_a_power_cut_left_empty_cost_what_was_in_them(tmp_path: Path, chunks: int) -> None:
    """A file system may have noted the file's length before the data came: zeros follow what was written."""
    file, sent = write(tmp_path / "bag")
    whole, ends = file.read_bytes(), chunk_ends(file)
    file.write_bytes(whole[: ends[chunks - 1]] + bytes(len(whole) - ends[chunks - 1]))
    assert recover(tmp_path / "bag").messages == EACH * chunks
    assert read(tmp_path / "bag") == sent[: EACH * chunks]


def test_recovery_of_a_whole_bag_changes_no_byte(tmp_path: Path) -> None:
    write(tmp_path / "bag", "zstd")
    before = contents(tmp_path / "bag")
    assert recover(tmp_path / "bag").rebuilt == ()
    assert contents(tmp_path / "bag") == before
    file, _ = write(tmp_path / "other")
    file.write_bytes(file.read_bytes()[:-30])
    assert recover(tmp_path / "other").rebuilt == (file.name,)
    before = contents(tmp_path / "other")
    assert recover(tmp_path / "other").rebuilt == ()
    assert contents(tmp_path / "other") == before


def test_metadata_that_belong_to_other_files_are_written_anew(tmp_path: Path) -> None:
    file, sent = write(tmp_path / "bag")
    shutil.copy(file, tmp_path / "bag" / "bag_1.mcap")
    recover(tmp_path / "bag")
    assert len(read(tmp_path / "bag")) == 2 * len(sent)


def test_one_file_is_mended_without_what_lies_beside_it(tmp_path: Path) -> None:
    """A folder of recordings, each a file: they are no one bag."""
    file, sent = write(tmp_path / "bag")
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name in ("monday.mcap", "tuesday.mcap"):
        (folder / name).write_bytes(file.read_bytes()[:-30])
    before = contents(folder)
    assert recover(folder / "tuesday.mcap").messages == len(sent)
    assert contents(folder).keys() == before.keys()
    assert contents(folder)["monday.mcap"] == before["monday.mcap"]
    assert read(folder / "tuesday.mcap") == sent


def test_what_is_no_mcap_is_not_sent_to_recovery(tmp_path: Path) -> None:
    (tmp_path / "some.db3").write_bytes(b"no database")
    with pytest.raises(BagError, match="only bags with MCAP storage"):
        open_bag(tmp_path / "some.db3")
    (tmp_path / "some.bag").write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(BagError, match="ropes import"):
        open_bag(tmp_path / "some.bag")
    with pytest.raises(BagError, match=r"must not end in \.bag"):  # and could not be read
        BagWriter(tmp_path / "new.bag", robot="stick")
    assert not (tmp_path / "new.bag").exists()


def test_damage_to_the_first_chunk_costs_that_chunk_alone(tmp_path: Path) -> None:
    """Topics and types are told there, but not there only."""
    file, sent = write(tmp_path / "bag", "zstd")
    content = bytearray(file.read_bytes())
    end = chunk_ends(file)[0]
    content[end - 40 : end] = bytes(40)
    file.write_bytes(content)
    recover(tmp_path / "bag")
    assert read(tmp_path / "bag") == sent[EACH:]


def _damaged(whole: bytes, random: Random) -> bytes:
    """Bits flipped, bytes and stretches replaced, stretches cut out, doubled or zeroed; also in what counts most."""
    content = bytearray(whole)
    for _ in range(random.choice((1, 1, 1, 2, 5, 20))):
        place = random.randrange(len(content))
        length = random.choice((1, 1, 4, 8, 100, 1000))
        kind = random.randrange(7)
        if kind <= 2:
            content[place] ^= 1 << random.randrange(8)
        elif kind == 3:
            content[place : place + length] = random.randbytes(length)
        elif kind == 4:
            content[place : place + 8] = random.choice((bytes(8), b"\xff" * 8, b"\xff\xff\xff\x7f\0\0\0\0"))
        elif kind == 5:
            del content[place : place + length]
        else:
            content[place:place] = content[place : place + length]
        if len(content) < 2:
            break
    return bytes(content)


def _fuzz(folder: Path, seed: int, count: int, found: multiprocessing.Queue[object]) -> None:
    """Damage bags and use them; what is not told by a RopesError is put into the queue, and how much memory it took."""
    originals = []
    for compression in ("none", "zstd", "lz4"):
        file, _ = write(folder / compression, compression)
        originals.append((file.read_bytes(), (folder / compression / "metadata.yaml").read_bytes()))
    random = Random(seed)
    bag = folder / "bag"
    peak = 0
    for number in range(count):
        storage, metadata = originals[number % len(originals)]
        shutil.rmtree(bag, ignore_errors=True)
        bag.mkdir()
        (name,) = (entry.name for entry in (folder / ("none", "zstd", "lz4")[number % 3]).glob("*.mcap"))
        sound = number < 12
        part = random.randrange(8)
        (bag / name).write_bytes(storage if sound or part == 0 else _damaged(storage, random))
        (bag / "metadata.yaml").write_bytes(_damaged(metadata, random) if not sound and part <= 1 else metadata)
        for use in (read, recover, read):
            try:
                use(bag)
            except RopesError:
                pass
            except BaseException as error:
                found.put(f"number {number}: {use.__name__}: {error!r}")
        if number == 11:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found.put((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024)


def test_damaged_bags_are_told_of_and_nothing_else_happens(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    found: multiprocessing.Queue[object] = context.Queue()
    process = context.Process(target=_fuzz, args=(tmp_path, 1, FUZZED, found), daemon=True)
    process.start()
    problems: list[object] = []
    try:
        while not isinstance(result := found.get(timeout=FUZZ_S), int):
            problems.append(result)
    finally:
        process.kill()
        process.join()
    assert not problems
    assert result < FUZZ_BYTES
