"""The parameter methods of rclpy.node.Node."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from ropes_ros.standalone.messages import message_class
from ropes_ros.standalone.parameters import Parameter, Parameters, PreSetCallback, SetCallback


class NodeParameters:
    """What a node says of its parameters, which `_ropes_parameters` holds."""

    _ropes_parameters: Parameters

    def declare_parameter(
        self, name: str, value: Any = None, descriptor: Any = None, ignore_override: bool = False
    ) -> Parameter:
        """Declare a parameter with a default value or a Parameter.Type."""
        item = (name,) if value is None and descriptor is None else (name, value, descriptor)
        return self.declare_parameters("", [item], ignore_override)[0]

    def declare_parameters(
        self, namespace: str, parameters: Sequence[Sequence[Any]], ignore_override: bool = False
    ) -> list[Parameter]:
        """Declare several parameters, each (name), (name, value) or (name, value, descriptor).

        Raises:
            TypeError: an item is none of these.
            ParameterException: a name is empty or declared, or a value is refused.
            ValueError: value and descriptor leave a type open, or say it twice.
        """
        kind: Any = message_class("rcl_interfaces/msg/ParameterDescriptor")
        declared = []
        for item in parameters:
            if not 1 <= len(item) <= 3 or not isinstance(item[0], str):
                raise TypeError(f"{item!r} declares no parameter: give name, value and descriptor")
            name, value, descriptor = (*item, None, None)[:3]
            full = f"{namespace}.{name}" if namespace else name
            if descriptor is None:
                descriptor = kind()
            if not isinstance(descriptor, kind):
                raise TypeError(f"parameter {full!r}: expected a ParameterDescriptor, not {descriptor!r}")
            if len(item) == 1:
                warnings.warn(
                    f"parameter {full!r} is declared by its name alone, which is deprecated; give a value, a type, or "
                    "a descriptor with dynamic_typing",
                    stacklevel=3,
                )
                descriptor.dynamic_typing = True
            declared.append(self._ropes_parameters.declare(full, value, descriptor, ignore_override))
        return declared

    def undeclare_parameter(self, name: str) -> None:
        """Remove a parameter."""
        self._ropes_parameters.undeclare(name)

    def has_parameter(self, name: str) -> bool:
        """Whether a parameter is declared."""
        return self._ropes_parameters.has(name)

    def get_parameter(self, name: str) -> Parameter:
        """A parameter."""
        return self._ropes_parameters.get(name)

    def get_parameters(self, names: list[str]) -> list[Parameter]:
        """Several parameters."""
        return [self._ropes_parameters.get(name) for name in names]

    def get_parameter_type(self, name: str) -> Any:
        """A parameter's type as a number of rcl_interfaces/ParameterType."""
        parameter = self._ropes_parameters.peek(name)
        return (self._ropes_parameters.get(name) if parameter is None else parameter).type_.value

    def get_parameter_types(self, names: list[str]) -> list[Any]:
        """Several parameters' types."""
        return [self.get_parameter_type(name) for name in names]

    def get_parameter_or(self, name: str, alternative_value: Parameter | None = None) -> Parameter:
        """A parameter, or the alternative where it is not declared or has no value."""
        parameter = self._ropes_parameters.peek(name)
        if parameter is not None and parameter.type_ != Parameter.Type.NOT_SET:
            return parameter
        return alternative_value or Parameter(name, Parameter.Type.NOT_SET)

    def get_parameters_by_prefix(self, prefix: str) -> dict[str, Parameter]:
        """Parameters below a prefix, by the rest of their names."""
        start = f"{prefix}." if prefix else ""
        return {
            name.removeprefix(start): self._ropes_parameters.get(name)
            for name in self._ropes_parameters.declared()
            if name.startswith(start)
        }

    def list_parameters(self, prefixes: list[str], depth: int) -> Any:
        """Names below the prefixes (none: all) with up to `depth` more parts (0: any number), and their prefixes.

        Returns:
            rcl_interfaces/ListParametersResult.
        """
        if not isinstance(prefixes, list) or not all(isinstance(prefix, str) for prefix in prefixes):
            raise TypeError("prefixes must be a list of names")
        if not isinstance(depth, int):
            raise TypeError(f"depth must be a whole number, not {depth!r}")
        if depth < 0:
            raise ValueError(f"depth must not be negative, but is {depth}")
        found, parents = self._ropes_parameters.below(prefixes, depth)
        return message_class("rcl_interfaces/msg/ListParametersResult")(names=found, prefixes=parents)

    def set_parameters(self, parameter_list: list[Parameter]) -> list[Any]:
        """Set parameters one by one; a result each."""
        return [self.set_parameters_atomically([parameter]) for parameter in parameter_list]

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> Any:
        """Set all parameters or none."""
        if not all(isinstance(parameter, Parameter) for parameter in parameter_list):
            raise TypeError(f"expected Parameters, not {parameter_list!r}")
        return self._ropes_parameters.set_all(parameter_list)

    def describe_parameter(self, name: str) -> Any:
        """A parameter's descriptor."""
        return self._ropes_parameters.descriptor(name)

    def describe_parameters(self, names: list[str]) -> list[Any]:
        """Several parameters' descriptors."""
        return [self._ropes_parameters.descriptor(name) for name in names]

    def add_pre_set_parameters_callback(self, callback: PreSetCallback) -> None:
        """Let callback(parameters) say which parameters to set instead; the newest is asked first."""
        self._ropes_parameters.before_set.insert(0, callback)

    def remove_pre_set_parameters_callback(self, callback: PreSetCallback) -> None:
        """Ask the callback no more."""
        self._ropes_parameters.before_set.remove(callback)

    def add_on_set_parameters_callback(self, callback: SetCallback) -> None:
        """Ask callback(parameters) for a SetParametersResult before parameters change; the newest is asked first."""
        self._ropes_parameters.on_set.insert(0, callback)

    def remove_on_set_parameters_callback(self, callback: SetCallback) -> None:
        """Ask the callback no more."""
        self._ropes_parameters.on_set.remove(callback)

    def add_post_set_parameters_callback(self, callback: Callable[[list[Parameter]], Any]) -> None:
        """Call callback(parameters) after parameters have changed."""
        self._ropes_parameters.after_set.insert(0, callback)

    def remove_post_set_parameters_callback(self, callback: Callable[[list[Parameter]], Any]) -> None:
        """Call the callback no more."""
        self._ropes_parameters.after_set.remove(callback)
