"""All checks in the order of the screen. A check that raises is a finding of its own and hides no other."""

from collections.abc import Callable, Iterator, Mapping

from salakseg.doctor import libraries, places, torch_build, work
from salakseg.doctor.finding import Finding, broken
from salakseg.errors import SalaksegError, first_line

CHECKS: Mapping[str, Callable[[], Finding]] = {
    "Python": libraries.python,
    "packages": libraries.packages,
    "extras": libraries.extras,
    "NVIDIA driver": torch_build.driver,
    "torch": torch_build.torch_build,
    "ONNX Runtime": libraries.runtime_packages,
    "ONNX session": libraries.session,
    "GDAL": libraries.gdal,
    "encoder weights": places.weights,
    "disk for cache": places.cache_disk,
    "disk for runs": places.runs_disk,
    "loader worker": work.loader_worker,
    "training step": work.training_step,
    "tile": work.tile,
}
"""The checks by the name that the screen gives them."""


def examine(checks: Mapping[str, Callable[[], Finding]] = CHECKS) -> Iterator[tuple[str, Finding]]:
    """Runs checks one after the other.

    Args:
        checks: The checks by name.

    Yields:
        Name and finding, as soon as it is known.
    """
    for name, check in checks.items():
        try:
            yield name, check()
        except Exception as error:  # whatever a broken library raises
            yield name, _failed(error)


def _failed(error: Exception) -> Finding:
    if isinstance(error, SalaksegError):
        return broken(str(error), "mend it as this says")
    if not isinstance(error, ImportError | OSError):
        remedy = "see the findings above; if they are all ok, install salakseg anew in a fresh environment"
    elif torch_build.import_fault():  # to install it blindly would bring a build without CUDA on Windows
        return broken("cannot be tried without torch", "see torch above")
    else:
        named = (getattr(error, "name", None) or "").partition(".")[0] or "salakseg"
        remedy = f"install {named} anew: pip install --force-reinstall {named}"
    return broken(f"failed ({type(error).__name__}: {first_line(error)})", remedy)
