"""The services by which `ros2 param` and others read and set a node's parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ropes_ros.standalone.errors import ParameterException
from ropes_ros.standalone.messages import message_class, service_class
from ropes_ros.standalone.parameters import Parameter
from ropes_ros.standalone.qos import qos_profile_parameters

if TYPE_CHECKING:
    from ropes_ros.standalone.node import Node


class ParameterServices:
    """Offers the six parameter services of a node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        for name, kind, callback in (
            ("describe_parameters", "DescribeParameters", self._describe),
            ("get_parameter_types", "GetParameterTypes", self._types),
            ("get_parameters", "GetParameters", self._get),
            ("list_parameters", "ListParameters", self._list),
            ("set_parameters", "SetParameters", self._set),
            ("set_parameters_atomically", "SetParametersAtomically", self._set_atomically),
        ):
            node.create_service(
                service_class(f"rcl_interfaces/srv/{kind}"), f"~/{name}", callback, qos_profile=qos_profile_parameters
            )

    def _value(self, name: str) -> Any:
        parameter = self._node.parameters.peek(name)
        if parameter is None:
            return message_class("rcl_interfaces/msg/ParameterValue")()
        return parameter.get_parameter_value()

    def _describe(self, request: Any, response: Any) -> Any:
        for name in request.names:
            if self._node.has_parameter(name):
                response.descriptors.append(self._node.parameters.descriptor(name))
            else:
                response.descriptors.append(message_class("rcl_interfaces/msg/ParameterDescriptor")(name=name))
        return response

    def _types(self, request: Any, response: Any) -> Any:
        response.types = [self._value(name).type for name in request.names]
        return response

    def _get(self, request: Any, response: Any) -> Any:
        response.values = [self._value(name) for name in request.names]
        return response

    def _list(self, request: Any, response: Any) -> Any:
        names, prefixes = [], set()
        for name in self._node.parameters.declared():
            for prefix in request.prefixes or [""]:
                below = name.removeprefix(f"{prefix}.") if prefix else name
                inside = not prefix or name == prefix or below != name
                if inside and (request.depth == 0 or below.count(".") < request.depth):
                    names.append(name)
                    if "." in name:
                        prefixes.add(name.rpartition(".")[0])
                    break
        response.result.names = names
        response.result.prefixes = sorted(prefixes)
        return response

    def _set(self, request: Any, response: Any) -> Any:
        response.results = [self._try([message]) for message in request.parameters]
        return response

    def _set_atomically(self, request: Any, response: Any) -> Any:
        response.result = self._try(request.parameters)
        return response

    def _try(self, messages: list[Any]) -> Any:
        result = message_class("rcl_interfaces/msg/SetParametersResult")
        try:
            return self._node.set_parameters_atomically([Parameter.from_parameter_msg(m) for m in messages])
        except (ParameterException, ValueError) as error:
            return result(successful=False, reason=str(error))
