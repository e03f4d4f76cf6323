"""A bag's metadata in the form that an older ROS 2 reads; the storage files stay as they are.

rosbag2 of Humble reads metadata.yaml up to version 5 (rosbag2_storage, `yaml.hpp` and `metadata_io.cpp`): profiles of
QoS are a text with numbers, and there are no custom data, type hashes or distributions yet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rosbags.rosbag2 import ReaderError
from rosbags.rosbag2.metadata import dump_qos_v8, parse_qos

from ropes_ros.bag_format import METADATA_FILE, first_line, load_metadata, write_metadata
from ropes_ros.bags import open_bag
from ropes_ros.errors import BagError

HUMBLE_VERSION = 5
_KEPT = (
    "storage_identifier",
    "duration",
    "starting_time",
    "message_count",
    "compression_format",
    "compression_mode",
    "relative_file_paths",
    "files",
)


def rewrite_for_humble(path: str | Path) -> bool:
    """Rewrite metadata.yaml so that rosbag2 of Humble opens the bag, which needs its MCAP storage plugin for that.

    What this package says about the bag stays in the storage file, where it is read from then on.

    Args:
        path: A whole bag.

    Returns:
        False where it was in that form already, or in an older one.

    Raises:
        BagError: It is no whole bag, its metadata are malformed, or they cannot be written.
    """
    path = Path(path)
    open_bag(path).close()
    try:
        information = load_metadata(path)
        if int(information["version"]) <= HUMBLE_VERSION:
            return False
        write_metadata(path, {"rosbag2_bagfile_information": _of_humble(information)}, fsync=True)
    except (KeyError, TypeError, ValueError, AttributeError, ReaderError) as error:
        raise BagError(
            f"{path / METADATA_FILE} is malformed ({first_line(error)}): run `ropes recover {path}`"
        ) from error
    except OSError as error:
        raise BagError(f"{path / METADATA_FILE} cannot be written ({error.strerror}): mend permissions") from error
    return True


def _of_humble(information: dict[str, Any]) -> dict[str, Any]:
    topics = []
    for entry in information["topics_with_message_count"]:
        topic = entry["topic_metadata"]
        topics.append(
            {
                "topic_metadata": {
                    "name": topic["name"],
                    "type": topic["type"],
                    "serialization_format": topic["serialization_format"],
                    "offered_qos_profiles": dump_qos_v8(parse_qos(topic["offered_qos_profiles"])),
                },
                "message_count": entry["message_count"],
            }
        )
    return {
        "version": HUMBLE_VERSION,
        **{key: information[key] for key in _KEPT},
        "topics_with_message_count": topics,
    }
