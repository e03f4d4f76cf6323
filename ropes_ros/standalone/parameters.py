"""Parameters of a node: declaration, types, ranges, overrides and callbacks (rclpy.parameter)."""

from __future__ import annotations

import difflib
import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
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
_DESCRIPTOR = "rcl_interfaces/msg/ParameterDescriptor"
_DEFAULT = "its default"
_RELATIVE_TOLERANCE = 1e-6  # rclpy's
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
PreSetCallback = Callable[[list[Parameter]], list[Parameter]]
_NO_PARAMETERS = "parameter list cannot be empty; a pre-set callback of the node may have removed what was in it"


@dataclass
class Changes:
    """What one step has done to a node's parameters."""

    new: list[Parameter] = field(default_factory=list)
    changed: list[Parameter] = field(default_factory=list)
    deleted: list[Parameter] = field(default_factory=list)


class Parameters:
    """The parameters of one node."""

    def __init__(
        self,
        node: str,
        overrides: Sequence[Override],
        allow_undeclared: bool,
        publish: Callable[[Changes], Any] = lambda changes: None,
    ) -> None:
        self._node = node
        self._values: dict[str, Parameter] = {}
        self._descriptors: dict[str, Any] = {}
        self._overrides: dict[str, tuple[Any, str]] = {}
        self._required: dict[str, str] = {}
        self._publish = publish
        self.allow_undeclared = allow_undeclared
        self.before_set: list[PreSetCallback] = []
        self.on_set: list[SetCallback] = []
        self.after_set: list[Callable[[list[Parameter]], Any]] = []
        for override in overrides:
            if matches(override.node, node):
                self._overrides[override.name] = (override.value, override.source)
                if override.required:
                    self._required[override.name] = override.source

    # -- declaration ---------------------------------------------------------------------------------------------

    def declare(self, name: str, value: Any, descriptor: Any, ignore_override: bool) -> Parameter:
        """Declare a parameter; an override takes the place of the default value.

        Raises:
            ParameterException: the name is empty or declared, or the value is refused.
            ValueError: value and descriptor leave the type open, or say it twice.
        """
        if not name:
            raise InvalidParameterException(f"the name of a parameter of node {self._node} is empty")
        if name in self._values:
            raise ParameterAlreadyDeclaredException(f"parameter {name!r} of node {self._node} is declared already")
        kind, default = self._kind_and_default(name, value, descriptor)
        source = _DEFAULT
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
        self._tell([parameter], Changes(new=[parameter]))
        return parameter

    def _kind_and_default(self, name: str, value: Any, descriptor: Any) -> tuple[_Type, Any]:
        if isinstance(value, _Type):
            if value == _Type.NOT_SET:
                raise ValueError(f"{self._label(name)} cannot be declared with the type NOT_SET")
            if descriptor.dynamic_typing:
                raise ValueError(f"{self._label(name)} is declared with a type and with dynamic_typing; choose one")
            return value, None
        value = _plain(value)
        try:
            kind = _Type.from_parameter_value(value)
        except TypeError:
            raise InvalidParameterTypeException(
                f"{self._label(name)} cannot hold {value!r}: use a bool, int, float, str or a list of one of them"
            ) from None
        if descriptor.dynamic_typing:
            return _Type.NOT_SET, value
        if kind == _Type.NOT_SET:
            raise ValueError(f"{self._label(name)} is declared without value or type; give one, or set dynamic_typing")
        return kind, value

    def declared(self) -> list[str]:
        """Names of all declared parameters."""
        return list(self._values)

    def overridden(self) -> dict[str, Any]:
        """Names and values that the command line, a file or the node's constructor gives."""
        return {name: value for name, (value, _) in self._overrides.items()}

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
        if name not in self._values:
            raise self._not_declared(name)
        if self._descriptors[name].read_only:
            raise ParameterImmutableException(f"{self._label(name)} is read only and cannot be undeclared")
        del self._values[name], self._descriptors[name]

    def _not_declared(self, name: str) -> ParameterNotDeclaredException:
        return ParameterNotDeclaredException(f"node {self._node} has not declared parameter {name!r}")

    # -- reading -------------------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Whether a parameter is declared."""
        return name in self._values

    def get(self, name: str) -> Parameter:
        """A parameter, which must be declared and, unless dynamically typed, have a value."""
        parameter = self._values.get(name)
        if parameter is None:
            if self.allow_undeclared:
                return Parameter(name, _Type.NOT_SET, None)
            raise self._not_declared(name)
        if parameter.value is None and not self._descriptors[name].dynamic_typing:
            raise ParameterUninitializedException(f"{self._label(name)} has no value; give one with -p {name}:=value")
        return parameter

    def peek(self, name: str) -> Parameter | None:
        """A parameter if it is declared."""
        return self._values.get(name)

    def descriptor(self, name: str) -> Any:
        """A parameter's descriptor."""
        if name in self._descriptors:
            return self._descriptors[name]
        if self.allow_undeclared:
            return message_class(_DESCRIPTOR)()
        raise self._not_declared(name)

    def below(self, prefixes: Sequence[str], depth: int) -> tuple[list[str], list[str]]:
        """Names below any of the prefixes (none: all), and the prefixes that those have.

        Args:
            prefixes: Parts of names before a dot.
            depth: How many more parts a name may have; 0 for any number.
        """
        found, parents = [], []
        for name in self._values:
            for prefix in prefixes or [""]:
                rest = name.removeprefix(f"{prefix}.") if prefix else name
                inside = not prefix or name == prefix or rest != name
                if inside and (depth == 0 or rest.count(".") < depth or name == prefix):
                    found.append(name)
                    parent = name.rpartition(".")[0]
                    if parent and parent not in parents:
                        parents.append(parent)
                    break
        return found, parents

    # -- setting -------------------------------------------------------------------------------------------------

    def set_all(self, parameters: Iterable[Parameter]) -> Any:
        """Set parameters together: all or none. A parameter of type NOT_SET removes one that allows it.

        Returns:
            rcl_interfaces/SetParametersResult.

        Raises:
            ParameterNotDeclaredException: one is not declared, and the node does not allow that.
        """
        result = message_class("rcl_interfaces/msg/SetParametersResult")
        wanted = list(parameters)
        if self.before_set:
            wanted = [parameter for callback in self.before_set for parameter in callback(wanted)]
            if not wanted:
                return result(successful=False, reason=_NO_PARAMETERS)
        for parameter in wanted:
            if parameter.name not in self._values and not self.allow_undeclared:
                raise self._not_declared(parameter.name)
        checked: list[Parameter] = []
        for parameter in wanted:
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
        self._tell(checked, self._store(checked))
        return result(successful=True)

    def _store(self, parameters: list[Parameter]) -> Changes:
        changes = Changes()
        for parameter in parameters:
            name = parameter.name
            if parameter.type_ == _Type.NOT_SET:
                changes.deleted.append(parameter)
                self._values.pop(name, None)
                self._descriptors.pop(name, None)
                continue
            before = self._values.get(name)
            (changes.new if before is None or before.value is None else changes.changed).append(parameter)
            self._values[name] = parameter
            if name not in self._descriptors:
                self._descriptors[name] = message_class(_DESCRIPTOR)(name=name, dynamic_typing=True)
            if self._descriptors[name].dynamic_typing:
                self._descriptors[name].type = parameter.type_.value
        return changes

    def _label(self, name: str) -> str:
        return f"parameter {name!r} of node {self._node}"

    def _checked(self, name: str, value: Any, source: str) -> Parameter:
        value = _plain(value)
        descriptor = self._descriptors.get(name)
        if descriptor is None or descriptor.dynamic_typing:
            try:
                parameter = Parameter(name, None, value)
            except TypeError:
                raise InvalidParameterTypeException(
                    f"{self._label(name)} cannot hold {value!r} ({source}): use a bool, int, float, str or a list of "
                    "one of them"
                ) from None
            if source != "set" and descriptor is not None:
                descriptor.type = parameter.type_.value
        else:
            parameter = self._typed(name, _Type(descriptor.type), value, source)
        reason = "" if descriptor is None else _out_of_range(parameter.value, descriptor)
        if reason:
            raise InvalidParameterValueException(f"{self._label(name)} must be {reason}, not {value!r} ({source})")
        return parameter

    def _typed(self, name: str, kind: _Type, value: Any, source: str) -> Parameter:
        if value is None:
            if source == _DEFAULT:
                return Parameter(name, _Type.NOT_SET, None)
            raise InvalidParameterTypeException(f"{self._label(name)} must be {kind.name}, not empty ({source})")
        if not kind.check(value):
            raise InvalidParameterTypeException(
                f"{self._label(name)} must be {kind.name}, not {value!r} ({source}){_type_hint(kind, value)}"
            )
        return Parameter(name, kind, list(value) if isinstance(value, tuple) else value)

    def _ask_callbacks(self, parameters: list[Parameter]) -> str:
        for callback in tuple(self.on_set):
            result = callback(parameters)
            if not result.successful:
                return str(result.reason) or "refused by the node"
        return ""

    def _tell(self, parameters: list[Parameter], changes: Changes) -> None:
        self._publish(changes)
        for callback in tuple(self.after_set):
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
    whole = isinstance(value, int)

    def close(one: Any, other: Any) -> bool:
        return bool(one == other) if whole else math.isclose(one, other, rel_tol=_RELATIVE_TOLERANCE)

    for limits in ranges:
        lower, upper = sorted((limits.from_value, limits.to_value))
        step = limits.step
        if close(value, lower) or close(value, upper):
            continue
        if not lower < value < upper:
            return f"in [{lower}, {upper}]"
        if step and not close(lower + round((value - lower) / step) * step, value):
            return f"in [{lower}, {upper}] in steps of {step}"
    return ""
