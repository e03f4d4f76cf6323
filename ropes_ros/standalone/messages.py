"""Message classes that behave as rosidl's: nested defaults, keyword constructor, checked assignment, CDR.

`message_class("sensor_msgs/msg/Image")` generates the class on first use; `interface_modules()` are the packages
(`sensor_msgs.msg`, `std_srvs.srv`, ...) that node files import.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from operator import attrgetter
from types import ModuleType
from typing import Any, ClassVar, TypeVar

import numpy as np
from rosbags.interfaces import Nodetype

from ropes_ros.standalone import cdr, definitions
from ropes_ros.standalone.errors import MessageError

_M = TypeVar("_M", bound="Message")
_IDL_NAMES = {"bool": "boolean", "byte": "octet", "float32": "float", "float64": "double"}
_INTEGER_RANGES = {
    **{f"int{bits}": (-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": (0, (1 << bits) - 1) for bits in (8, 16, 32, 64)},
}
_ORDERS = ("<", ">")
_NATIVE = "<" if sys.byteorder == "little" else ">"


@dataclass(frozen=True)
class Field:
    """One field: its name, rosidl's name of its type, default, checked conversion, and codec per byte order."""

    name: str
    idl_type: str
    default: Callable[[], Any]
    convert: Callable[[Any], Any]
    codecs: Mapping[str, tuple[cdr.Write, cdr.Read]]


class Message:
    """Base of all generated messages and of the two halves of services."""

    __slots__: tuple[str, ...] = ()
    TYPE_NAME: ClassVar[str]
    FIELDS: ClassVar[dict[str, Field]]
    _defaults: ClassVar[list[tuple[Callable[[Any, Any], None], Callable[[], Any]]]]
    _getters: ClassVar[list[tuple[Callable[[Any], Any], cdr.Write, str]]]
    _setters: ClassVar[dict[str, list[tuple[Callable[[Any, Any], None], cdr.Read]]]]

    def __init__(self, **values: Any) -> None:
        for store, default in self._defaults:
            store(self, default())
        for name, value in values.items():
            if name not in self.FIELDS:
                raise AttributeError(f"{self.TYPE_NAME} has no field {name!r}; it has {', '.join(self.FIELDS)}")
            setattr(self, name, value)

    @classmethod
    def get_fields_and_field_types(cls) -> dict[str, str]:
        """Field names and their types, as rosidl writes them."""
        return {name: field.idl_type for name, field in cls.FIELDS.items()}

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return False
        return all(_equal(getattr(self, name), getattr(other, name)) for name in self.FIELDS)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.FIELDS)
        return f"{type(self).__module__}.{type(self).__qualname__}({fields})"

    @classmethod
    def _write(cls, message: Message, chunks: list[Any], position: int) -> int:
        if message.__class__ is not cls:
            raise TypeError(f"expected {cls.TYPE_NAME}, not {type(message).__name__}")
        name = ""
        try:
            for get, write, name in cls._getters:  # noqa: B007 (the handler names the field)
                position = write(get(message), chunks, position)
        except (struct.error, TypeError, ValueError, AttributeError) as error:
            raise TypeError(f"{cls.TYPE_NAME}, field {name}: {error}") from None
        return position

    @classmethod
    def _read(cls, order: str, buffer: memoryview, position: int) -> tuple[Message, int]:
        message = cls.__new__(cls)
        for store, read in cls._setters[order]:
            value, position = read(buffer, position)
            store(message, value)
        return message, position


def serialize_message(message: Message) -> bytes:
    """A message as CDR bytes.

    Raises:
        TypeError: a field holds what its type cannot carry; the text names the field.
    """
    chunks: list[Any] = []
    size = message._write(message, chunks, 0)
    return cdr.join(chunks, size)


def deserialize_message(serialized_message: bytes, message_type: type[_M]) -> _M:
    """The message that CDR bytes hold.

    Raises:
        MessageError: the bytes are not a message of that type.
    """
    data = memoryview(serialized_message)
    try:
        order = cdr.order_of(data)
        message, _ = message_type._read(order, data[4:], 0)
    except (struct.error, ValueError) as error:
        raise MessageError(f"{len(data)} bytes are not a {message_type.TYPE_NAME}: {error}") from None
    return message  # type: ignore[return-value]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b))
    return bool(a == b)


def _check(kind: str, value: Any) -> Any:
    """One scalar, checked as rosidl does; numpy's integers and bools pass as Python's."""
    if kind == "string":
        if not isinstance(value, str):
            raise TypeError(f"must be a str, not {type(value).__name__}")
        return value
    if kind == "bool":
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"must be a bool, not {type(value).__name__}")
        return bool(value)
    if kind == "byte":
        if not isinstance(value, (bytes, bytearray)) or len(value) != 1:
            raise TypeError(f"must be one byte such as b'\\x00', not {value!r}")
        return bytes(value)
    if kind in _INTEGER_RANGES:
        if not isinstance(value, (int, np.integer)):
            raise TypeError(f"must be an int, not {type(value).__name__}")
        lower, upper = _INTEGER_RANGES[kind]
        if not lower <= value <= upper:
            raise ValueError(f"must be in [{lower}, {upper}], not {value}")
        return int(value)
    if not isinstance(value, (float, np.floating)):
        raise TypeError(f"must be a float, not {type(value).__name__}")
    return float(value)


def _check_items(check: Callable[[Any], Any], limit: int, exact: bool, value: Any) -> list[Any]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"must be a sequence, not {type(value).__name__}")
    values = [check(item) for item in value]
    _check_length(len(values), limit, exact)
    return values


def _check_length(count: int, limit: int, exact: bool) -> None:
    if exact and count != limit:
        raise ValueError(f"must hold {limit} items, not {count}")
    if limit and count > limit:
        raise ValueError(f"must hold at most {limit} items, not {count}")


def _check_message(cls: type[Message], value: Any) -> Message:
    if not isinstance(value, cls):
        raise TypeError(f"must be a {cls.TYPE_NAME}, not {type(value).__name__}")
    return value


def _to_array(kind: str, limit: int, value: Any) -> array[Any]:
    """A sequence of numbers as array.array; buffers are copied as a whole."""
    typecode = cdr.NUMBERS[kind][1] or "B"
    dtype = np.dtype(typecode)
    if isinstance(value, array):
        if value.typecode != typecode:
            raise TypeError(f"must be an array of typecode {typecode!r}, not {value.typecode!r}")
        result = value
    elif isinstance(value, np.ndarray):
        if value.ndim > 1 and dtype.itemsize > 1:
            raise TypeError("must be a one-dimensional array")
        if not np.can_cast(value.dtype, dtype, "same_kind"):
            raise TypeError(f"must be an array of {dtype}, not {value.dtype}")
        result = array(typecode)
        result.frombytes(np.ascontiguousarray(value, dtype).reshape(-1).view(np.uint8).data)
    elif isinstance(value, (bytes, bytearray, memoryview)) and dtype.itemsize == 1:
        result = array(typecode)
        result.frombytes(value)
    else:
        result = array(typecode, _check_items(partial(_check, kind), 0, False, value))
    _check_length(len(result), limit, False)
    return result


def _to_ndarray(kind: str, count: int, value: Any) -> np.ndarray[Any, Any]:
    """A fixed number of numbers as a numpy array."""
    dtype = np.dtype(cdr.NUMBERS[kind][1] or "B")
    if isinstance(value, np.ndarray):
        if not np.can_cast(value.dtype, dtype, "same_kind"):
            raise TypeError(f"must be an array of {dtype}, not {value.dtype}")
        if value.dtype == dtype and value.ndim == 1 and value.flags.c_contiguous:
            result = value
        else:
            result = np.ascontiguousarray(value, dtype).reshape(-1)
    elif isinstance(value, array):
        result = np.array(value, dtype)
    else:
        result = np.array(_check_items(partial(_check, kind), 0, False, value), dtype)
    _check_length(len(result), count, True)
    return result


def _scalar_default(kind: str) -> Any:
    return {"string": "", "bool": False, "byte": b"\x00", "float32": 0.0, "float64": 0.0}.get(kind, 0)


def _message_codec(cls: type[Message], order: str) -> tuple[cdr.Write, cdr.Read]:
    return cls._write, partial(cls._read, order)


def _element(desc: Any) -> tuple[str, Callable[[], Any], Callable[[Any], Any], dict[str, Any]]:
    """IDL type, default, check and codecs of a field that is not an array, or of an array's element."""
    if desc[0] == Nodetype.NAME:
        cls = message_class(desc[1])
        codecs = {order: _message_codec(cls, order) for order in _ORDERS}
        return desc[1].replace("/msg/", "/"), cls, partial(_check_message, cls), codecs
    kind, limit = desc[1]
    check = partial(_check, kind)
    default = _scalar_default(kind)
    if kind == "string":
        return (
            f"string<{limit}>" if limit else "string",
            lambda: default,
            check,
            {order: cdr.string(order) for order in _ORDERS},
        )
    return (
        _IDL_NAMES.get(kind, kind),
        lambda: default,
        check,
        {order: cdr.number(kind, order) for order in _ORDERS},
    )


def _field(name: str, desc: Any, default_value: Any) -> Field:
    if desc[0] not in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        idl_type, default, convert, codecs = _element(desc)
        if default_value is not None:
            return Field(name, idl_type, lambda: default_value, convert, codecs)
        return Field(name, idl_type, default, convert, codecs)
    inner, limit = desc[1]
    fixed = desc[0] == Nodetype.ARRAY
    count = limit if fixed else None
    item_type, item_default, check, item_codecs = _element(inner)
    if fixed:
        idl_type = f"{item_type}[{limit}]"
    else:
        idl_type = f"sequence<{item_type}, {limit}>" if limit else f"sequence<{item_type}>"
    kind = inner[1][0] if inner[0] == Nodetype.BASE else ""
    typecode = cdr.NUMBERS.get(kind, ("", None))[1]
    if typecode is None:
        return Field(
            name,
            idl_type,
            (lambda: [item_default() for _ in range(limit)]) if fixed else list,
            partial(_check_items, check, limit, fixed),
            {order: cdr.items(item_codecs[order], order, count) for order in _ORDERS},
        )
    codecs = {order: cdr.numbers(kind, order, count) for order in _ORDERS}
    if fixed:
        dtype = np.dtype(typecode)
        return Field(name, idl_type, lambda: np.zeros(limit, dtype), partial(_to_ndarray, kind, limit), codecs)
    return Field(name, idl_type, lambda: array(typecode), partial(_to_array, kind, limit), codecs)


def _property(type_name: str, field: Field, store: Callable[[Any, Any], None]) -> property:
    convert = field.convert

    def assign(message: Any, value: Any) -> None:
        try:
            store(message, convert(value))
        except (TypeError, ValueError) as error:
            raise type(error)(f"{type_name}, field {field.name}: {error}") from None

    return property(attrgetter("_" + field.name), assign)


def _constant(kind: str, value: Any) -> Any:
    return bytes([value]) if kind == "byte" else value


@cache
def message_class(type_name: str) -> type[Message]:
    """The class of a message type such as `sensor_msgs/msg/Image`.

    Raises:
        MessageError: the type is not among the known definitions.
    """
    if type_name not in definitions.STORE.fielddefs:
        raise MessageError(f"message type {type_name} is unknown; known packages: {definitions.packages()}")
    constants, fielddefs = definitions.STORE.fielddefs[type_name]
    package, folder, name = type_name.split("/")
    defaults = definitions.DEFAULTS.get(type_name, {})
    fields = {key: _field(key, desc, defaults.get(key)) for key, desc in fielddefs}
    cls: type[Message] = type(
        name,
        (Message,),
        {
            "__module__": f"{package}.{folder}",
            "__slots__": tuple("_" + key for key in fields),
            "__doc__": f"The message {type_name}.",
            "TYPE_NAME": type_name,
            "FIELDS": fields,
            **{key: _constant(kind, value) for key, kind, value in constants},
        },
    )
    stores = {key: cls.__dict__["_" + key].__set__ for key in fields}
    for key, field in fields.items():
        setattr(cls, key, _property(type_name, field, stores[key]))
    cls._defaults = [(stores[key], field.default) for key, field in fields.items()]
    cls._getters = [(attrgetter("_" + key), field.codecs[_NATIVE][0], key) for key, field in fields.items()]
    cls._setters = {
        order: [(stores[key], field.codecs[order][1]) for key, field in fields.items()] for order in _ORDERS
    }
    return cls


@cache
def service_class(type_name: str) -> type:
    """The class of a service type such as `std_srvs/srv/Trigger`, with members Request and Response."""
    package, folder, name = type_name.split("/")
    return type(
        name,
        (),
        {
            "__module__": f"{package}.{folder}",
            "__doc__": f"The service {type_name}.",
            "TYPE_NAME": type_name,
            "Request": message_class(f"{type_name}_Request"),
            "Response": message_class(f"{type_name}_Response"),
        },
    )


class _InterfaceModule(ModuleType):
    """A module such as `sensor_msgs.msg` whose classes are generated when first asked for."""

    def __init__(self, package: str, folder: str, names: Sequence[str]) -> None:
        super().__init__(f"{package}.{folder}", f"Interfaces of {package}, generated from their definitions.")
        self.__all__ = list(names)
        self._prefix = f"{package}/{folder}/"
        self._make = message_class if folder == "msg" else service_class

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self.__all__:
            raise AttributeError(f"{self.__name__} has no {name!r}")
        cls = self._make(self._prefix + name)
        setattr(self, name, cls)
        return cls


def interface_modules() -> dict[str, ModuleType]:
    """All interface packages as modules by dotted name, ready for sys.modules."""
    modules: dict[str, ModuleType] = {}
    for package in definitions.packages():
        parent = ModuleType(package, f"Interface package {package}.")
        parent.__path__ = []
        modules[package] = parent
        for folder, names in (
            ("msg", definitions.message_names(package)),
            ("srv", definitions.service_names(package)),
        ):
            if names:
                module = _InterfaceModule(package, folder, names)
                modules[module.__name__] = module
                setattr(parent, folder, module)
    return modules
