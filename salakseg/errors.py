"""Every error a user can cause. The message is one sentence that names the file and says what to do next.

The command line prints a `SalaksegError` as one line and exits with status 1; any other exception is a defect of
ours and keeps its traceback.
"""


class SalaksegError(Exception):
    """Base of all errors that a user can mend."""


class ClassMapError(SalaksegError):
    """A class mapping that cannot be read, or that does not fit the data or the model."""


class DataError(SalaksegError):
    """Patches, masks or splits that are missing, unreadable or contradictory."""


class UnreadableError(DataError):
    """A file that is missing, truncated or no picture."""


class ClassIndexError(DataError):
    """A mask with an index that is no class."""


class RecipeError(SalaksegError):
    """A recipe or a training flag with an unknown name or an impossible value."""


class WeightsError(SalaksegError):
    """Encoder weights that are not at hand or do not fit the encoder."""


class CheckpointError(SalaksegError):
    """A checkpoint that is truncated, foreign or of an unknown schema."""


class TrainingError(SalaksegError):
    """A run that cannot go on, such as a loss that is no longer finite."""


class TargetError(SalaksegError):
    """A target file that is missing or does not hold a target."""


class ReportError(SalaksegError):
    """A report that cannot be written or read."""


class ExportError(SalaksegError):
    """An exported model that does not agree with its source."""


class EngineError(SalaksegError):
    """A model file that cannot be used for inference."""


class RasterError(SalaksegError):
    """An orthomosaic that cannot be read, or a map that cannot be written."""


class SampleError(SalaksegError):
    """Points that are no sample of a map, or cannot be read as one."""


class ClusterError(SalaksegError):
    """A cluster that cannot be reached, or whose workers cannot do the work."""


class ProjectError(SalaksegError):
    """A project folder or a setting in `salakseg.toml` that does not work."""


def first_line(error: BaseException, most: int = 200) -> str:
    """The first line of what an error of somebody else's library says, or its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:most] if lines else type(error).__name__
