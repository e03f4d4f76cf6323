"""Parameters of a node: declaration, types, ranges, overrides and callbacks (rclpy.parameter)."""

from __future__ import annotations

import difflib
import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any

import numpy as np

from ropes_ros.standalone.arguments import Override, matches
from ropes_ros.standalone.errors import (
    InvalidParameterException,
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterAlreadyDeclaredException,
    ParameterException,
    ParameterImmutableException,
    ParameterNotDeclaredException,
    ParameterUninitializedException,
)
from ropes_ros.standalone.messages import message_class

_VALUE = "rcl_interfaces/msg/ParameterValue"
_FIELDS = (
    "", "bool_value", "integer_value", "double_value", "string_value",
    "byte_array_value", "bool_array_value", "integer_array_value", "double_array_value", "string_array_value",
)  # fmt: skip


class _Type(Enum):
    """The types that a parameter can have."""

    NOT_SET = 0
    BOOL = 1
    INTEGER = 2
    DOUBLE = 3
    STRING = 4
    BYTE_ARRAY = 5
    BOOL_ARRAY = 6
    INTEGER_ARRAY = 7
    DOUBLE_ARRAY = 8
    STRING_ARRAY = 9

    @classmethod
    def from_parameter_value(cls, value: Any) -> _Type:
        """The type of a Python value.

        Raises:
            TypeError: no parameter can hold it.
        """
        if value is None:
            return cls.NOT_SET
        for kind, python in _SCALARS:
            if isinstance(value, python):
                return kind
        if isinstance(value, (list, tuple, array)):
            if all(isinstance(item, bytes) for item in value):
                return cls.BYTE_ARRAY
            for kind, python in _SCALARS:
                if all(isinstance(item, python) and (python is bool or not isinstance(item, bool)) for item in value):
                    return cls(kind.value + 5)
        raise TypeError(f"The given value is not one of the allowed types '{value}'.")

    def check(self, value: Any) -> bool:
        """Whether a value has this type."""
        try:
            found = _Type.from_parameter_value(value)
        except TypeError:
            return False
        is_empty = isinstance(value, (list, tuple, array)) and len(value) == 0
        return found == self or (is_empty and self.value >= _Type.BYTE_ARRAY.value)


_SCALARS: tuple[tuple[_Type, type], ...] = (
    (_Type.BOOL, bool),
    (_Type.INTEGER, int),
    (_Type.DOUBLE, float),
    (_Type.STRING, str),
)


def _plain(value: Any) -> Any:
    """Python's own types for numpy's scalars and arrays, which rclpy takes too."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return value


class Parameter:
    """A parameter's name, type and value."""

    Type = _Type

    def __init__(self, name: str, type_: _Type | None = None, value: Any = None) -> None:
        value = _plain(value)
        if type_ is None:
            type_ = _Type.from_parameter_value(value)
        if not isinstance(type_, _Type):
            raise TypeError("type must be an instance of 'Parameter.Type'")
        if value is not None and not type_.check(value):
            raise ValueError(f"Type '{type_}' and value '{value}' do not agree")
        self._name, self._type, self._value = name, type_, value

    @property
    def name(self) -> str:
        """The parameter's name."""
        return self._name

    @property
    def type_(self) -> _Type:
        """The parameter's type."""
        return self._type

    @property
    def value(self) -> Any:
        """The parameter's value."""
        return self._value

    def get_parameter_value(self) -> Any:
        """As rcl_interfaces/ParameterValue."""
        message = message_class(_VALUE)(type=self._type.value)
        if self._type != _Type.NOT_SET:
            setattr(message, _FIELDS[self._type.value], self._value)
        return message

    def to_parameter_msg(self) -> Any:
        """As rcl_interfaces/Parameter."""
        return message_class("rcl_interfaces/msg/Parameter")(name=self._name, value=self.get_parameter_value())

    @classmethod
    def from_parameter_msg(cls, message: Any) -> Parameter:
        """From rcl_interfaces/Parameter."""
        return cls(message.name, _Type(message.value.type), parameter_value_to_python(message.value))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Parameter):
            return False
        return (self._name, self._type, self._value) == (other._name, other._type, other._value)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Parameter(name={self._name!r}, type={self._type.name}, value={self._value!r})"


def parameter_value_to_python(message: Any) -> Any:
    """The Python value of an rcl_interfaces/ParameterValue."""
    kind = _Type(message.type)
    if kind == _Type.NOT_SET:
        return None
    value = getattr(message, _FIELDS[kind.value])
    return list(value) if kind.value >= _Type.BYTE_ARRAY.value else value


SetCallback = Callable[[list[Parameter]], Any]


class Parameters:
    """The parameters of one node."""

    def __init__(self, node: str, overrides: Sequence[Override], allow_undeclared: bool) -> None:
        self._node = node
        self._values: dict[str, Parameter] = {}
        self._descriptors: dict[str, Any] = {}
        self._overrides: dict[str, tuple[Any, str]] = {}
        self._required: dict[str, str] = {}
        self._allow_undeclared = allow_undeclared
        self.on_set: list[SetCallback] = []
        self.after_set: list[Callable[[list[Parameter]], Any]] = []
        for override in overrides:
            if matches(override.node, node):
                self._overrides[override.name] = (override.value, override.source)
                if override.required:
                    self._required[override.name] = override.source

    # -- declaration ---------------------------------------------------------------------------------------------

    def declare(self, name: str, value: Any, descriptor: Any, ignore_override: bool) -> Parameter:
        """Declare a parameter; an override takes the place of the default value."""
        if name in self._values:
            raise ParameterAlreadyDeclaredException(f"parameter {name!r} of node {self._node} is declared already")
        if not name or name.startswith((".", "/")) or any(c.isspace() for c in name):
            raise InvalidParameterException(f"parameter name {name!r} of node {self._node} is not valid")
        descriptor = descriptor or message_class("rcl_interfaces/msg/ParameterDescriptor")()
        kind, default = self._kind_and_default(name, value, descriptor)
        source = "its default"
        if not ignore_override and name in self._overrides:
            default, source = self._overrides[name]
            if isinstance(default, (list, tuple)) and not default and kind != _Type.NOT_SET:
                default = []
        descriptor.name = name
        descriptor.type = kind.value
        self._descriptors[name] = descriptor
        try:
            parameter = self._checked(name, default, source)
            refused = self._ask_callbacks([parameter])
            if refused:
                raise InvalidParameterValueException(f"{self._label(name)} = {default!r} ({source}): {refused}")
        except ParameterException:
            del self._descriptors[name]
            raise
        self._values[name] = parameter
        self._tell([parameter])
        return parameter

    def _kind_and_default(self, name: str, value: Any, descriptor: Any) -> tuple[_Type, Any]:
        if isinstance(value, _Type):
            return value, None
        value = _plain(value)
        try:
            kind = _Type.from_parameter_value(value)
        except TypeError:
            raise InvalidParameterTypeException(
                f"{self._label(name)} cannot hold {value!r}: use a bool, int, float, str or a list of one of them"
            ) from None
        if kind == _Type.NOT_SET:
            if descriptor.type:
                kind = _Type(descriptor.type)
            elif not descriptor.dynamic_typing:
                raise InvalidParameterTypeException(
                    f"{self._label(name)} is declared without value or type; give one, or set dynamic_typing"
                )
        return (_Type.NOT_SET if descriptor.dynamic_typing else kind), value

    def declared(self) -> list[str]:
        """Names of all declared parameters."""
        return list(self._values)

    def overridden(self) -> list[str]:
        """Names for which the command line or a file gives values."""
        return list(self._overrides)

    def undeclared_overrides(self) -> dict[str, str]:
        """Names from the command line that nothing has declared, with their arguments."""
        return {name: source for name, source in self._required.items() if name not in self._values}

    def unknown_override(self, name: str, source: str) -> ParameterNotDeclaredException:
        """The error for an override that no node declares."""
        close = difflib.get_close_matches(name, self._values, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(sorted(self._values))}"
        return ParameterNotDeclaredException(f"{source}: node {self._node} has no parameter {name!r}; {hint}")

    def undeclare(self, name: str) -> None:
        """Remove a parameter."""
        self.descriptor(name)
        if self._descriptors[name].read_only:
            raise ParameterImmutableException(f"{self._label(name)} is read only and cannot be undeclared")
        del self._values[name], self._descriptors[name]

    # -- reading -------------------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Whether a parameter is declared."""
        return name in self._values

    def get(self, name: str) -> Parameter:
        """A parameter, which must be declared and, unless dynamically typed, have a value."""
        parameter = self._values.get(name)
        if parameter is None:
            if self._allow_undeclared:
                return Parameter(name, _Type.NOT_SET, None)
            raise ParameterNotDeclaredException(f"node {self._node} has not declared parameter {name!r}")
        if parameter.value is None and not self._descriptors[name].dynamic_typing:
            raise ParameterUninitializedException(f"{self._label(name)} has no value; give one with -p {name}:=value")
        return parameter

    def peek(self, name: str) -> Parameter | None:
        """A parameter if it is declared."""
        return self._values.get(name)

    def descriptor(self, name: str) -> Any:
        """A parameter's descriptor."""
        if name not in self._descriptors:
            raise ParameterNotDeclaredException(f"node {self._node} has not declared parameter {name!r}")
        return self._descriptors[name]

    # -- setting -------------------------------------------------------------------------------------------------

    def set_all(self, parameters: Iterable[Parameter]) -> Any:
        """Set parameters together: all or none.

        Returns:
            rcl_interfaces/SetParametersResult.
        """
        result = message_class("rcl_interfaces/msg/SetParametersResult")
        checked: list[Parameter] = []
        for parameter in parameters:
            if parameter.name not in self._values and not self._allow_undeclared:
                raise ParameterNotDeclaredException(f"node {self._node} has not declared parameter {parameter.name!r}")
            descriptor = self._descriptors.get(parameter.name)
            if descriptor is not None and descriptor.read_only:
                return result(successful=False, reason=f"{self._label(parameter.name)} is read only")
            try:
                checked.append(self._checked(parameter.name, parameter.value, "set"))
            except ParameterException as error:
                return result(successful=False, reason=str(error))
        refused = self._ask_callbacks(checked)
        if refused:
            return result(successful=False, reason=refused)
        for parameter in checked:
            if parameter.name not in self._descriptors:
                self._descriptors[parameter.name] = message_class("rcl_interfaces/msg/ParameterDescriptor")(
                    name=parameter.name, type=parameter.type_.value, dynamic_typing=True
                )
            self._values[parameter.name] = parameter
        self._tell(checked)
        return result(successful=True)

    def _label(self, name: str) -> str:
        return f"parameter {name!r} of node {self._node}"

    def _checked(self, name: str, value: Any, source: str) -> Parameter:
        value = _plain(value)
        descriptor = self._descriptors.get(name)
        if descriptor is None or descriptor.dynamic_typing:
            try:
                return Parameter(name, None, value)
            except TypeError:
                raise InvalidParameterTypeException(
                    f"{self._label(name)} cannot hold {value!r} ({source}): use a bool, int, float, str or a list of "
                    "one of them"
                ) from None
        kind = _Type(descriptor.type)
        if value is None:
            if source == "its default":
                return Parameter(name, kind, None)
            raise InvalidParameterTypeException(f"{self._label(name)} must be {kind.name}, not empty ({source})")
        if not kind.check(value):
            raise InvalidParameterTypeException(
                f"{self._label(name)} must be {kind.name}, not {value!r} ({source}){_type_hint(kind, value)}"
            )
        for item in value if isinstance(value, (list, tuple, array)) else [value]:
            reason = _out_of_range(item, descriptor)
            if reason:
                raise InvalidParameterValueException(f"{self._label(name)} must be {reason}, not {value!r} ({source})")
        return Parameter(name, kind, list(value) if isinstance(value, tuple) else value)

    def _ask_callbacks(self, parameters: list[Parameter]) -> str:
        for callback in self.on_set:
            result = callback(parameters)
            if not result.successful:
                return str(result.reason) or "refused by the node"
        return ""

    def _tell(self, parameters: list[Parameter]) -> None:
        for callback in self.after_set:
            callback(parameters)


def _type_hint(kind: _Type, value: Any) -> str:
    if kind == _Type.DOUBLE and isinstance(value, int) and not isinstance(value, bool):
        return f"; write {value}.0"
    if kind == _Type.DOUBLE_ARRAY and isinstance(value, list):
        return "; write its numbers with a decimal point"
    if kind == _Type.STRING:
        return f"; write \"'{value}'\""
    return ""


def _out_of_range(value: Any, descriptor: Any) -> str:
    if isinstance(value, bool):
        return ""
    if isinstance(value, int):
        ranges = descriptor.integer_range
    elif isinstance(value, float):
        ranges = descriptor.floating_point_range
    else:
        return ""
    for limits in ranges:
        lower, upper, step = limits.from_value, limits.to_value, limits.step
        at_end = isinstance(value, float) and (math.isclose(value, lower) or math.isclose(value, upper))
        if at_end:
            continue
        if not lower <= value <= upper:
            return f"in [{lower}, {upper}]"
        if step and not math.isclose((value - lower) / step, round((value - lower) / step), abs_tol=1e-9):
            return f"in [{lower}, {upper}] in steps of {step}"
    return ""
