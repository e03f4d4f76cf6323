"""The services by which `ros2 param` and others read and set a node's parameters."""

from __future__ import annotations

from collections.abc import Callable
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

    def _describe(self, request: Any, response: Any) -> Any:
        response.descriptors = self._all(self._node.describe_parameter, request.names)
        return response

    def _types(self, request: Any, response: Any) -> Any:
        response.types = self._all(self._node.get_parameter_type, request.names)
        return response

    def _get(self, request: Any, response: Any) -> Any:
        response.values = self._all(lambda name: self._node.get_parameter(name).get_parameter_value(), request.names)
        return response

    @staticmethod
    def _all(look_up: Callable[[str], Any], names: list[str]) -> list[Any]:
        """What is known of each name; nothing at all where one is not declared or has no value, as in rclpy."""
        try:
            return [look_up(name) for name in names]
        except ParameterException:
            return []

    def _list(self, request: Any, response: Any) -> Any:
        response.result = self._node.list_parameters(list(request.prefixes), request.depth)
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
