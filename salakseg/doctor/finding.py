"""What a check of the machine found. Nothing outside the standard library is needed here."""

from dataclasses import asdict, dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a finding is to be taken; only `BROKEN` makes the command fail."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        status: How it is to be taken.
        found: One sentence or a few words on what there is.
        remedy: What to do; empty where nothing has to be done.
    """

    status: Status
    found: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """Plain values for JSON."""
        return asdict(self) | {"status": self.status.value}


def good(found: str) -> Finding:
    """A finding with nothing to do."""
    return Finding(Status.OK, found)


def warning(found: str, remedy: str) -> Finding:
    """A finding that costs speed or comfort."""
    return Finding(Status.WARNING, found, remedy)


def broken(found: str, remedy: str) -> Finding:
    """A finding that keeps a command from working."""
    return Finding(Status.BROKEN, found, remedy)
