"""Model files sent as differences: from one precision to another by the residual bits alone, verified by hash.

A difference says how the bytes of the new file follow from those of the old one: ranges that are copied, packed
integer weights of more bits from those of fewer and a residual (or of fewer bits by slicing), and what is new. To apply
one needs neither onnx nor torch. Both files' SHA-256 stand in it, and the card that vouches for the new one; stored
frames, too, where the new file is checked on others than the old one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ropes_ros.encoder import CHECK_KEY, FRAMES_FILE, MAX_CARD_BYTES, MAX_MODEL_BYTES, stated_sha256
from ropes_ros.errors import ModelError, RuntimeSetupError
from ropes_ros.nested import WIDTHS, pack, slice_digits, unpack, values_of

MAGIC = b"ropes_ros model difference 1\n"
LEAST_COPIED = 64
"""Bytes of a tensor below which it is sent rather than copied."""
CARD = "card.md"
MAX_HEADER_BYTES = 8 * MAX_CARD_BYTES
_MODEL_NAME = re.compile(r"(?!\.)[^/\\\x00-\x1f]{1,100}\.onnx")
"""What a difference may write beside card and frames: no hidden file, nothing in another folder."""
_NESTED = re.compile(r"^(?P<weight>.+)\.(?P<form>codes|packed)$")


class _Stored(NamedTuple):
    """A tensor's bytes within a model file.

    Attributes:
        offset, length: Where they are.
        bits, extra: Of integer weights; 0 bits for others.
        size: Number of weights.
        signed: Whether digits are stored as integers around 0.
    """

    offset: int
    length: int
    bits: int
    extra: bool
    size: int
    signed: bool

    @property
    def values(self) -> int:
        """How many values a digit has."""
        return values_of(self.bits, extra=self.extra)

    def digits(self, content: bytes) -> NDArray[np.uint8]:
        """The weights' digits, uint8 [size]."""
        raw = np.frombuffer(content, dtype=np.uint8, count=self.length, offset=self.offset)
        return unpack(raw, self.values, self.size) ^ self.sign

    @property
    def sign(self) -> np.uint8:
        """What tells a stored digit from that of an integer around 0: the first bit."""
        return np.uint8(self.values // 2 if self.signed else 0)


def difference(old: Path, new: Path, out: Path) -> int:
    """Write what makes one model file of another.

    Args:
        old: The file that the receiver has.
        new: The one that it is to have; its card lies beside it.
        out: Where the difference goes.

    Returns:
        Its size in bytes.

    Raises:
        ModelError: A file is missing, or no model; no card vouches for the new one; `out` is something else.
        RuntimeSetupError: onnx is not installed.
    """
    before, after = _content(old), _content(new)
    if out.is_file() and not MAGIC.startswith(out.read_bytes()[: len(MAGIC)]):  # one that was cut off may be empty
        raise ModelError(f"{out}: is there, and no difference of models; name another file")
    if not _MODEL_NAME.fullmatch(new.name):
        raise ModelError(f"{new}: a model file's name ends in .onnx; rename it, and export it again")
    their_model, our_model = _parsed(before, old), _parsed(after, new)
    theirs, ours = _tensors(their_model, before), _tensors(our_model, after)
    card = _vouching(new, after)
    by_bytes = {before[entry.offset : entry.offset + entry.length]: entry for entry in theirs.values()}
    steps: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    done = 0
    for name, entry in sorted(ours.items(), key=lambda item: item[1].offset):
        if entry.length < LEAST_COPIED or entry.offset < done:  # the latter where two tensors have the same bytes
            continue
        step = _step(name, entry, theirs, by_bytes, before, after, blobs)
        if step is None:
            continue
        blobs.append(after[done : entry.offset])
        steps += [{"new": len(blobs) - 1}, step]
        done = entry.offset + entry.length
    blobs.append(after[done:])
    steps.append({"new": len(blobs) - 1})
    if _made(steps, before, blobs) != after:
        raise ModelError(f"{new}: does not follow from {old} by a difference; send it whole, and report this")
    header: dict[str, Any] = {
        "old": {"name": old.name, "sha256": hashlib.sha256(before).hexdigest()},
        "new": {"name": new.name, "sha256": hashlib.sha256(after).hexdigest()},
        "card": card,
        "steps": steps,
    }
    if (shown := _frames_of(our_model)) not in (None, _frames_of(their_model)):
        frames = _content(new.with_name(FRAMES_FILE))
        if hashlib.sha256(frames).hexdigest() != shown:
            raise ModelError(f"{new}: was exported beside another {FRAMES_FILE}; export it again")
        blobs.append(frames)
        header["frames"] = len(blobs) - 1
    header["blobs"] = [len(blob) for blob in blobs]
    packed = MAGIC + zlib.compress(json.dumps(header).encode() + b"\n" + b"".join(blobs), 9)
    out.write_bytes(packed)
    return len(packed)


def apply(old: Path, difference_file: Path, out: Path | None = None) -> Path:
    """Make the new model file of the old one and a difference; nothing is written unless the hash is right.

    An update that was interrupted, or is repeated, ends as one that was not.

    Args:
        old: The model file that is there.
        difference_file: What `difference` wrote.
        out: Folder for the new file and its card; the old file's when None.

    Returns:
        The new model file.

    Raises:
        ModelError: The difference is damaged or from another file than this one.
    """
    before = _content(old)
    header, blobs = _opened(difference_file)
    found = hashlib.sha256(before).hexdigest()
    try:
        stated, name, wanted = header["old"]["sha256"], header["new"]["name"], header["new"]["sha256"]
        if (found, old.name) == (wanted, name):
            made = before
        elif found == stated:
            made = _made(header["steps"], before, blobs)
        else:
            raise ModelError(
                f"{difference_file}: was made from {header['old']['name']} with SHA-256 {stated[:16]}..., {old} has "
                f"{found[:16]}...; take the difference from this version, or the whole model"
            )
        files = {FRAMES_FILE: blobs[header["frames"]]} if "frames" in header else {}
        files |= {name: made, CARD: header["card"].encode()}
        right = _MODEL_NAME.fullmatch(name) and stated_sha256(header["card"], name) == wanted
        if not right or hashlib.sha256(made).hexdigest() != wanted:
            raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        raise ModelError(f"{difference_file}: is damaged; nothing was written, send it again") from None
    folder = old.parent if out is None else out
    _put(folder, files)
    return folder / str(name)


def _put(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files whole and to the device, then move them to their places, the card last."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as partial:
        for name, content in files.items():
            with (Path(partial) / name).open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        for name in files:
            os.replace(Path(partial) / name, folder / name)


def _step(
    name: str,
    entry: _Stored,
    theirs: dict[str, _Stored],
    by_bytes: dict[bytes, _Stored],
    before: bytes,
    after: bytes,
    blobs: list[bytes],
) -> dict[str, Any] | None:
    """How a tensor's bytes follow from the old file; None where they are sent as they are."""
    same = by_bytes.get(after[entry.offset : entry.offset + entry.length])
    if same is not None:
        return {"copy": [same.offset, same.length]}
    base = theirs.get(name)
    if base is None or not base.bits or not entry.bits or base.size != entry.size:
        return None
    has, wants = base.digits(before), entry.digits(after)
    kept = _predicted(has, base, entry)
    residual = (wants.astype(np.int16) - kept).astype(np.int16)
    step: dict[str, Any] = {"from": list(base), "to": list(entry)}
    if residual.any():
        if np.abs(residual).max() > 127:
            return None
        blobs.append(residual.astype(np.int8).tobytes())
        step["residual"] = len(blobs) - 1
    return step


def _predicted(has: NDArray[np.uint8], base: _Stored, entry: _Stored) -> NDArray[np.int16]:
    """Digits of the new tensor as far as those of the old one tell them."""
    if entry.bits <= base.bits:
        return slice_digits(has, base.bits, entry.bits, extra=entry.extra).astype(np.int16)
    whole: NDArray[np.int16] = has.astype(np.int16) * np.int16(1 << (entry.bits - base.bits))
    top = np.int16(values_of(entry.bits, extra=entry.extra) - 1)
    return np.where(whole > top, top, whole)


def _made(steps: Iterable[dict[str, Any]], before: bytes, blobs: list[bytes]) -> bytes:
    """The new file's bytes.

    Raises:
        ValueError: They are more than those of a model may be.
    """
    parts: list[bytes] = []
    length = 0
    for step in steps:
        parts.append(_applied(step, before, blobs))
        length += len(parts[-1])
        if length > MAX_MODEL_BYTES:
            raise ValueError(length)
    return b"".join(parts)


def _applied(step: dict[str, Any], before: bytes, blobs: list[bytes]) -> bytes:
    """The bytes that a step gives."""
    if "new" in step:
        return blobs[int(step["new"])]
    if "copy" in step:
        offset, length = step["copy"]
        return before[offset : offset + length]
    base, entry = _Stored(*step["from"]), _Stored(*step["to"])
    if base.bits not in WIDTHS or entry.bits not in WIDTHS:
        raise ValueError(step)
    digits = _predicted(base.digits(before), base, entry)
    if "residual" in step:
        digits = digits + np.frombuffer(blobs[step["residual"]], dtype=np.int8)
    return pack(digits.astype(np.uint8) ^ entry.sign, entry.values).tobytes()


def _parsed(content: bytes, path: Path) -> Any:
    """The onnx.ModelProto of a file."""
    try:
        import onnx
    except ImportError:
        raise RuntimeSetupError("onnx is not installed; run `pip install 'ropes_ros[train]'`") from None
    try:
        return onnx.load_model_from_string(content)
    except Exception as error:
        raise ModelError(f"{path}: is no ONNX model ({type(error).__name__}); name one") from None


def _frames_of(model: Any) -> str | None:
    """SHA-256 of the stored frames on which a model is checked; None for those without such a check."""
    stated = [entry.value for entry in model.metadata_props if entry.key == CHECK_KEY]
    return str(json.loads(stated[0])["frames"]) if stated else None


def _vouching(model: Path, content: bytes) -> str:
    """The text of the card beside a model, which states its SHA-256."""
    card = _content(model.with_name(CARD)).decode("utf-8", errors="replace")
    if stated_sha256(card, model.name) != hashlib.sha256(content).hexdigest():
        raise ModelError(f"{model}: its SHA-256 is not the one in {CARD}; it was changed or damaged, export it again")
    return card


def _tensors(model: Any, content: bytes) -> dict[str, _Stored]:
    """Where a model file's tensors are, by name; integer weights of whatever form by that of the weight."""
    import onnx
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, _Stored] = {}
    for name, tensor in tensors.items():
        offset = content.find(tensor.raw_data) if tensor.raw_data else -1
        if offset < 0:
            continue
        bits, extra, size, key = 0, False, int(np.prod(tensor.dims)), name
        signed = tensor.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.INT4)
        if nested := _NESTED.match(name):
            weight = nested["weight"]
            if signed:
                bits, key = 8 if tensor.data_type == onnx.TensorProto.INT8 else 4, weight
            elif f"{weight}.size" in tensors and f"{weight}.table" in tensors:
                values = len(np.unique(numpy_helper.to_array(tensors[f"{weight}.table"])))
                size, key = int(numpy_helper.to_array(tensors[f"{weight}.size"])[0]), weight
                extra = bool(values & (values - 1))
                bits = values.bit_length() - 1 if values < 256 else 0
        found[key] = _Stored(offset, len(tensor.raw_data), bits, extra, size, signed)
    return found


def _opened(path: Path) -> tuple[dict[str, Any], list[bytes]]:
    """Header and blobs of a difference."""
    content = _content(path)
    if not content.startswith(MAGIC):
        raise ModelError(f"{path}: is no difference of models; make one with `ropes model diff`")
    try:
        unpacker = zlib.decompressobj()
        whole = unpacker.decompress(content[len(MAGIC) :], MAX_MODEL_BYTES + MAX_CARD_BYTES)
        if not unpacker.eof:
            raise ValueError
        text, _, rest = whole.partition(b"\n")
        if len(text) > MAX_HEADER_BYTES:
            raise ValueError
        header: dict[str, Any] = json.loads(text)
        ends = np.cumsum([0, *header["blobs"]]).tolist()
        if ends[-1] != len(rest):
            raise ValueError
        return header, [rest[start:end] for start, end in pairwise(ends)]
    except (zlib.error, ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(f"{path}: is damaged; send it again") from None


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    if path.stat().st_size > MAX_MODEL_BYTES:
        raise ModelError(f"{path}: more than the {MAX_MODEL_BYTES} bytes that a model may have")
    return path.read_bytes()
