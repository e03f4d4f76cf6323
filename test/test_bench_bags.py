"""Figures of bags: what is timed and watched in processes of its own is what training does."""

from __future__ import annotations

from pathlib import Path

from ropes_ros.bags import TOPICS, open_bag
from ropes_ros.bench import bags


def test_both_kinds_of_bags_are_read_and_built(tmp_path: Path) -> None:
    for compressed in (False, True):
        path, cache = tmp_path / f"bag{compressed:d}", tmp_path / f"cache{compressed:d}"
        bags.write_bag(path, 30, compressed=compressed)
        with open_bag(path) as bag:
            assert bag.topics[TOPICS["image"]].count == 30
        assert min(bags._seconds("read_images", path)) > 0
        assert min(bags._seconds("build_frames", path, cache)) > 0
        (entry,) = cache.iterdir()
        assert (entry / "images.npy").stat().st_size > 30 * bags.NETWORK_SIZE[0] * bags.NETWORK_SIZE[1] * 3


def test_memory_is_that_of_a_process_that_builds(tmp_path: Path) -> None:
    bags.write_bag(tmp_path / "bag", 30, compressed=True)
    assert 20 < bags._peak_mb(tmp_path / "bag", tmp_path / "cache") < bags.LIMIT_MB
    assert not (tmp_path / "cache").exists()
