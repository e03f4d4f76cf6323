"""A bag's messages in parts that several threads read at a time.

Where the bag is of MCAP files with an index, a part is one of their chunks, and reading it, which is mostly unpacking,
is left to the thread that wants it. Elsewhere it is one message, read already.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mcap.records import ChunkIndex

from ropes_ros.bags import Bag, BagMessage
from ropes_ros.errors import BagError
from ropes_ros.mcap_chunks import ChunkReader, messages_indexed

_LARGEST = 1 << 26
"""64 MiB: larger chunks are left to the reader that holds one at a time."""


class Recorded(NamedTuple):
    """A message; `data` holds until its thread reads the next part."""

    topic: str
    log_time_ns: int
    data: bytes | memoryview


class Part(NamedTuple):
    """Some messages of a bag.

    Attributes:
        file: Number of the file that they are in; messages are in order of files, then of log times.
        counts: Messages by topic, as the index tells.
        read: Reads them, in any thread, with that thread's reader.
    """

    file: int
    counts: Mapping[str, int]
    read: Callable[[ChunkReader], Iterator[Recorded]]


def parts(bag: Bag, topics: Sequence[str]) -> Iterator[Part]:
    """All messages of some topics; nothing else is handed out.

    Raises:
        BagError: As `Bag.messages`; so do the parts when they are read.
    """
    chunks = _chunks(bag, topics)
    if chunks is not None:
        yield from chunks
        return
    for message in bag.messages(topics):
        yield _single(message)


def samples(bag: Bag, topic: str, wanted: int) -> Iterator[Part]:
    """Some messages of a topic, spread over the bag, without unpacking all that lies between them.

    Args:
        bag: The bag.
        topic: The topic.
        wanted: About how many; fewer where the log times are uneven.

    Raises:
        BagError: As `parts`.
    """
    chunks = _chunks(bag, [topic])
    if chunks is not None:
        yield from _sampled(chunks, topic, wanted)
        return
    found = False
    if bag.topics[topic].count > wanted:
        times = np.linspace(bag.start_ns, bag.end_ns + 1, wanted + 1).astype(np.int64).tolist()
        for start, stop in pairwise(times):
            for message in islice(bag.messages([topic], start, stop), 1):
                found = True
                yield _single(message)
    if not found:  # few messages, or times that the bag's own index does not tell
        for message in islice(bag.messages([topic]), wanted):
            yield _single(message)


def _single(message: BagMessage) -> Part:
    return Part(0, {message.topic: 1}, lambda _: iter((Recorded(*message),)))


def _sampled(chunks: list[Part], topic: str, wanted: int) -> Iterator[Part]:
    """The chunks that samples fall into, cut down to them; of many chunks the first message is the cheapest."""
    firsts = np.cumsum([0, *(part.counts[topic] for part in chunks)])
    numbers = np.unique(np.linspace(0, firsts[-1] - 1, min(wanted, int(firsts[-1]))).astype(np.int64))
    places: defaultdict[int, list[int]] = defaultdict(list)
    for number, place in zip(numbers.tolist(), (np.searchsorted(firsts, numbers, "right") - 1).tolist(), strict=True):
        places[place].append(number - int(firsts[place]))
    for place, offsets in places.items():
        chosen = [0] if wanted < len(chunks) else offsets
        yield chunks[place]._replace(counts={topic: len(chosen)}, read=partial(_pick, chunks[place], chosen))


def _pick(part: Part, chosen: list[int], reader: ChunkReader) -> Iterator[Recorded]:
    for number, message in enumerate(islice(part.read(reader), chosen[-1] + 1)):
        if number in chosen:
            yield message


def _chunks(bag: Bag, topics: Sequence[str]) -> list[Part] | None:
    """The chunks in which messages of some topics are; None where they cannot be read one by one."""
    found: list[Part] = []
    if bag.each_packed:
        return None
    for number, (file, summary) in enumerate(bag.summaries.items()):
        if summary is None:
            return None
        channels = {each.id: each.topic for each in summary.channels.values() if each.topic in topics}
        for chunk in sorted(summary.chunks, key=lambda chunk: (chunk.message_start_time, chunk.chunk_start_offset)):
            indexed = messages_indexed(chunk)
            if not indexed or chunk.uncompressed_size > _LARGEST:
                return None
            counts = {topic: 0 for topic in topics}
            for channel_id, topic in channels.items():
                counts[topic] += indexed.get(channel_id, 0)
            if any(counts.values()):
                found.append(Part(number, counts, partial(_read, bag.path, file, chunk, channels)))
    stated = all(sum(part.counts[topic] for part in found) == bag.topics[topic].count for topic in topics)
    return found if found and stated else None


def _read(
    bag: Path, file: Path, chunk: ChunkIndex, channels: Mapping[int, str], reader: ChunkReader
) -> Iterator[Recorded]:
    try:
        for message in reader.messages(file, chunk, channels):
            yield Recorded(channels[message.channel_id], message.log_time_ns, message.data)
    except (BagError, OSError) as error:
        raise BagError(f"{bag} is damaged ({error}): run `ropes recover {bag}`") from error
