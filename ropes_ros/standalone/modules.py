"""The modules that node files import (rclpy and the interface packages), made from this package."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from ropes_ros.standalone import (
    callback_groups,
    clock,
    context,
    diagnostics,
    duration,
    endpoints,
    errors,
    events,
    executor,
    future,
    graph,
    lifecycle,
    log,
    messages,
    node,
    parameters,
    qos,
    qos_overriding,
    real_rclpy,
    runtime,
    services,
    severity,
    states,
    timer,
)
from ropes_ros.standalone.errors import UnsupportedError

_QOS_NAMES = {
    "QoSHistoryPolicy": qos.HistoryPolicy,
    "QoSReliabilityPolicy": qos.ReliabilityPolicy,
    "QoSDurabilityPolicy": qos.DurabilityPolicy,
    "QoSLivelinessPolicy": qos.LivelinessPolicy,
}
_CLOCK = {"ClockType": duration.ClockType}


def _public(module: ModuleType) -> dict[str, Any]:
    """What a module of this package defines under public names."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", module.__name__) == module.__name__
    }


def _contents() -> dict[str, dict[str, Any]]:
    error_names = {name: value for name, value in _public(errors).items() if isinstance(value, type)}
    events_public = _public(events)
    return {
        "diagnostic_updater": {
            "DiagnosticStatusWrapper": diagnostics.status_wrapper(),
            "Updater": diagnostics.Updater,
        },
        "rclpy": {
            **_public(runtime),
            "Context": context.Context,
            "Future": future.Future,
            "Parameter": parameters.Parameter,
        },
        "rclpy.callback_groups": _public(callback_groups),
        "rclpy.client": {"Client": services.Client},
        "rclpy.clock": {**_public(clock), **_CLOCK},
        "rclpy.clock_type": _CLOCK,
        "rclpy.constants": {"S_TO_NS": duration.NANOSECONDS},
        "rclpy.context": {"Context": context.Context},
        "rclpy.duration": {"Duration": duration.Duration, "Infinite": qos.INFINITE},
        "rclpy.event_handler": {**events_public, "QoSPolicyKind": qos.QoSPolicyKind},
        "rclpy.exceptions": error_names,
        "rclpy.executors": {
            **_public(executor),
            "ExternalShutdownException": context.ExternalShutdownException,
        },
        "rclpy.handle": {"InvalidHandle": errors.InvalidHandle},
        "rclpy.lifecycle": {
            **_public(lifecycle),
            "LifecycleState": states.LifecycleState,
            "State": states.LifecycleState,
            "Node": lifecycle.LifecycleNode,
            "Publisher": lifecycle.LifecyclePublisher,
        },
        "rclpy.logging": {**_public(log), "LoggingSeverity": severity.LoggingSeverity},
        "rclpy.node": {"Node": node.Node},
        "rclpy.parameter": {
            "Parameter": parameters.Parameter,
            "parameter_value_to_python": parameters.parameter_value_to_python,
        },
        "rclpy.publisher": {"Publisher": endpoints.Publisher},
        "rclpy.qos": {**_public(qos), **_QOS_NAMES, "InvalidQoSProfileException": errors.InvalidQoSProfileException},
        "rclpy.qos_overriding_options": {
            "InvalidQosOverridesError": qos_overriding.InvalidQosOverridesError,
            "QoSOverridingOptions": qos_overriding.QoSOverridingOptions,
        },
        "rclpy.qos_event": events_public,
        "rclpy.serialization": {
            "serialize_message": messages.serialize_message,
            "deserialize_message": messages.deserialize_message,
        },
        "rclpy.service": {"Service": services.Service},
        "rclpy.signals": {
            "SignalHandlerOptions": context.SignalHandlerOptions,
            "install_signal_handlers": context.install_signal_handlers,
            "uninstall_signal_handlers": context.uninstall_signal_handlers,
        },
        "rclpy.subscription": {"Subscription": endpoints.Subscription},
        "rclpy.task": {"Future": future.Future},
        "rclpy.time": {"Time": duration.Time},
        "rclpy.timer": {"Timer": timer.Timer},
        "rclpy.topic_endpoint_info": {
            "TopicEndpointInfo": graph.TopicEndpointInfo,
            "TopicEndpointTypeEnum": graph.TopicEndpointTypeEnum,
        },
        "rclpy.utilities": {
            "get_default_context": context.get_default_context,
            "get_rmw_implementation_identifier": runtime.get_rmw_implementation_identifier,
            "ok": runtime.ok,
            "remove_ros_args": runtime.remove_ros_args,
            "shutdown": runtime.shutdown,
            "try_shutdown": runtime.try_shutdown,
        },
        "rosidl_runtime_py": {},
        "rosidl_runtime_py.utilities": {
            "get_message": messages.message_class,
            "get_service": messages.service_class,
        },
    }


class _Module(ModuleType):
    """A module that names what it lacks."""

    ROPES_STANDALONE = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UnsupportedError(f"{self.__name__}.{name} is not supported by the standalone runtime")


def install() -> bool:
    """Provide rclpy and the interface packages in sys.modules, unless the real rclpy is there.

    Returns:
        Whether the standalone modules are in place.
    """
    if real_rclpy():
        return False
    if "rclpy" in sys.modules:
        return True
    modules: dict[str, ModuleType] = dict(messages.interface_modules())
    for name, contents in _contents().items():
        provided = _Module(name, "Provided by ropes_ros.standalone.")
        provided.__dict__.update(contents)
        if "." not in name:
            provided.__path__ = []
        modules[name] = provided
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    sys.modules.update(modules)
    return True
