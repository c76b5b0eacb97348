"""Land-cover maps of salak farms from drone orthomosaics, learned from few labels and many unlabelled patches."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("salakseg")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"
