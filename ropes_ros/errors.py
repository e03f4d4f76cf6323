"""The errors that ropes_ros raises: one base class, one subclass per room of the house.

Every message says what was wrong, where (file, topic or parameter), and what to do, in one line.
"""


class RopesError(Exception):
    """Base of all errors that a user can cause and mend; the command line prints it without a traceback."""


class RobotError(RopesError):
    """A robot preset, its URDF, a joint or a link is unknown or inconsistent."""


class ScheduleError(RopesError):
    """A schedule, a regime or a density is malformed, or asks for what the robot cannot do."""


class BagError(RopesError):
    """A bag is missing, truncated, of an unknown schema, or lacks a topic."""


class TrainingError(RopesError):
    """The data cannot be learned from as asked."""


class ModelError(RopesError):
    """A model file is missing, damaged, of an unknown schema, or made for another robot or camera."""


class RuntimeSetupError(RopesError):
    """The machine lacks something: a package, a rendering library, a GPU, a free port."""
