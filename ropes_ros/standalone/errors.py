"""Errors of the standalone runtime: rclpy's exception names, each also a RopesError with one clear line."""

from __future__ import annotations

from ropes_ros.errors import RopesError


class StandaloneError(RopesError):
    """Base of the errors that the standalone runtime raises."""


class UnsupportedError(StandaloneError, AttributeError):
    """A part of rclpy's API that the standalone runtime does not have."""


class MisuseError(StandaloneError, RuntimeError):
    """The runtime was used in an order that it does not allow."""


class CallbackError(StandaloneError, RuntimeError):
    """A callback does not take what it would be called with."""


class ArgumentsError(StandaloneError, RuntimeError):
    """The ROS command line (--ros-args) or a parameter file is malformed."""


class DiscoveryError(StandaloneError):
    """An environment variable that steers discovery is malformed, or the DDS domain cannot be joined."""


class MessageError(StandaloneError):
    """Bytes are not a message of the type that the topic carries."""


class LifecycleError(StandaloneError, RuntimeError):
    """A lifecycle node could not be configured or activated."""


class NotInitializedException(StandaloneError, RuntimeError):
    """rclpy.init() has not been called, or the context is shut down."""

    def __init__(self) -> None:
        super().__init__("rclpy.init() has not been called, or rclpy is shut down")


class InvalidNameException(StandaloneError):
    """A node name, namespace, topic or service name is not valid in ROS 2."""


class NameValidationException(InvalidNameException):
    """Base of the name errors in rclpy's hierarchy."""


class InvalidTopicNameException(NameValidationException):
    """A topic name is not valid."""


class InvalidServiceNameException(NameValidationException):
    """A service name is not valid."""


class InvalidNodeNameException(NameValidationException):
    """A node name is not valid."""


class InvalidNamespaceException(NameValidationException):
    """A namespace is not valid."""


class InvalidQoSProfileException(StandaloneError):
    """A QoS profile lacks a depth, or asks for a policy that is not supported."""


class ParameterException(StandaloneError):
    """Base of the parameter errors."""


class ParameterNotDeclaredException(ParameterException):
    """A parameter was used that the node has not declared."""


class ParameterAlreadyDeclaredException(ParameterException):
    """A parameter was declared twice."""


class ParameterUninitializedException(ParameterException):
    """A parameter declared without a value was read before it was set."""


class InvalidParameterException(ParameterException):
    """A parameter's name is not valid."""


class InvalidParameterTypeException(ParameterException):
    """A parameter was given a value of another type than declared."""


class InvalidParameterValueException(ParameterException):
    """A parameter was given a value outside its range, or one that a callback refused."""


class ParameterImmutableException(ParameterException):
    """A read-only parameter was set."""


class InvalidHandle(StandaloneError, RuntimeError):
    """An entity was used after it was destroyed."""
