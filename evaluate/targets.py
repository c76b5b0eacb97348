"""What a model is measured against: figures per class and a headline, kept in a TOML file."""

import importlib.resources
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from salakseg.classes import BACKGROUND, ClassMap
from salakseg.errors import TargetError
from salakseg.evaluate.formats import finite_or_none, list_or_none, points_text
from salakseg.evaluate.metrics import Mean, Metrics


class TargetClass(BaseModel):
    """The figure for one class."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    """Name of the class, matched without regard to case and outer blanks."""
    iou: float = Field(ge=0, le=1, strict=True, allow_inf_nan=False)
    """The IoU to reach, 0 to 1."""
    aliases: tuple[str, ...] = ()
    """Other names under which a class map may hold the class."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The name and the aliases as they are compared."""
        return tuple(_key(name) for name in (self.name, *self.aliases))


class Target(BaseModel):
    """Figures that somebody hopes to reach or has published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    """What the target is called in reports."""
    headline_miou: float = Field(ge=0, le=1, strict=True, allow_inf_nan=False)
    """The mean IoU to reach, 0 to 1."""
    headline_with_background: bool = Field(strict=True)
    """Which mean the headline is compared with: that of all classes, or that of the classes from 1 on."""
    estimates: bool = Field(strict=True)
    """Whether the figures are estimates; reports then mark each of them."""
    source: str = Field(min_length=1)
    """Where the figures come from."""
    remark: str = ""
    """What a reader must know before comparing; every report prints it."""
    classes: tuple[TargetClass, ...] = ()
    """The figures per class."""

    @model_validator(mode="after")
    def _refuse_doubled_names(self) -> Self:
        keys = [key for target_class in self.classes for key in target_class.keys]
        doubled = sorted({key for key in keys if keys.count(key) > 1})
        if doubled:
            raise ValueError(f"the class name or alias {doubled[0]!r} stands twice")
        return self

    def expected_iou(self, class_map: ClassMap) -> NDArray[np.float64]:
        """The target's figures in the order of a class map.

        Background alone is no match: it is whatever the other classes of its map leave over.

        Returns:
            [K] float64, 0 to 1; NaN for a class that the target does not name.
        """
        figures = {key: target_class.iou for target_class in self.classes for key in target_class.keys}
        expected = np.array([figures.get(_key(name), np.nan) for name in class_map.names])
        if np.isnan(np.delete(expected, BACKGROUND)).all():
            expected[BACKGROUND] = np.nan
        return expected

    def matches(self, class_map: ClassMap) -> bool:
        """Whether the target has a figure for any class of a map."""
        return not bool(np.isnan(self.expected_iou(class_map)).all())


@dataclass(frozen=True, slots=True, eq=False)
class TargetComparison:
    """Measured figures beside a target.

    Attributes:
        target: The target.
        expected: [K] float64, the target's IoU, 0 to 1; NaN for a class that the target does not name.
        gap: [K] float64, measured minus expected IoU, -1 to 1; NaN where either is missing.
        headline_measured: The mean that the headline is compared with.
        headline_gap: Measured minus headline, -1 to 1; NaN when nothing was measured.
        unnamed: Classes of the class map that the target does not name.
    """

    target: Target
    expected: NDArray[np.float64]
    gap: NDArray[np.float64]
    headline_measured: Mean
    headline_gap: float
    unnamed: tuple[str, ...]

    @property
    def matched(self) -> int:
        """Number of classes that the target has a figure for."""
        return int((~np.isnan(self.expected)).sum())

    @property
    def is_of_other_classes(self) -> bool:
        """Whether the target names classes, and none of these; one that names none is a headline for any."""
        return bool(self.target.classes) and self.matched == 0

    def figure_text(self, class_id: int) -> str:
        """The target of one class for people, such as "0.72 est."; empty for a class that it does not name."""
        iou = self.expected[class_id]
        return "" if np.isnan(iou) else f"{iou:.2f}" + self._mark

    @property
    def headline_text(self) -> str:
        """The headline and the distance to it, for people."""
        gap = points_text(self.headline_gap)
        verdict = f"gap {gap} points" if gap else "nothing measured"
        mean = "with background" if self.target.headline_with_background else "without background"
        return f"mIoU {self.target.headline_miou:.2f}{self._mark} {mean}: {verdict}"

    @property
    def _mark(self) -> str:
        return " est." if self.target.estimates else ""

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences that belong beside the figures."""
        remarks = []
        if self.is_of_other_classes:
            remarks.append(
                f"The class map shares no class with the {self.target.name} target, so only its headline "
                f"{self.target.headline_miou:.2f} is compared, and that was set for other classes."
            )
        elif self.unnamed and self.target.classes:
            remarks.append(f"The {self.target.name} target has no figure for {', '.join(self.unnamed)}.")
        if self.target.remark:
            remarks.append(self.target.remark)
        return tuple(remarks)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        return {
            "definition": self.target.model_dump(mode="json"),
            "expected": list_or_none(self.expected),
            "gap": list_or_none(self.gap),
            "headline_measured": self.headline_measured.to_dict(),
            "headline_gap": finite_or_none(self.headline_gap),
            "unnamed": list(self.unnamed),
        }


def load_target(name_or_path: str | Path) -> Target:
    """Loads a target.

    Args:
        name_or_path: Name of a built-in target such as "diversenet", or the path of a TOML file. Text counts as a
            path if it ends in .toml or holds a slash.

    Raises:
        TargetError: No such target, or a file that does not hold one.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.lower().endswith(".toml") or "/" in text or "\\" in text:
        return _read_target(Path(name_or_path))
    return _parse_target(_builtin_text(text), f"the built-in target {text}")


def compare(target: Target, class_map: ClassMap, metrics: Metrics) -> TargetComparison:
    """Sets measured figures beside a target.

    Args:
        target: The target.
        class_map: The model's classes, K of them.
        metrics: The figures of the same K classes.
    """
    expected = target.expected_iou(class_map)
    measured = metrics.miou_with_background if target.headline_with_background else metrics.miou_without_background
    return TargetComparison(
        target=target,
        expected=expected,
        gap=metrics.iou - expected,
        headline_measured=measured,
        headline_gap=measured.value - target.headline_miou,
        unnamed=tuple(name for name, iou in zip(class_map.names, expected, strict=True) if np.isnan(iou)),
    )


def _key(name: str) -> str:
    return name.strip().casefold()


def _builtin_text(name: str) -> str:
    folder = importlib.resources.files("salakseg.evaluate") / "targets"
    files = {entry.name.removesuffix(".toml"): entry for entry in folder.iterdir() if entry.name.endswith(".toml")}
    if _key(name) not in files:
        known = ", ".join(sorted(files))
        raise TargetError(f"There is no built-in target {name!r}; use one of {known}, or the path of a .toml file.")
    return files[_key(name)].read_text(encoding="utf-8")


def _read_target(path: Path) -> Target:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise TargetError(f"The target file {path} does not exist; check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(f"The target file {path} cannot be read as text in UTF-8 ({error}).") from error
    return _parse_target(text, f"the target file {path}")


def _parse_target(text: str, source: str) -> Target:
    try:
        return Target.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise TargetError(f"{_upper_first(source)} is not valid TOML ({error}); mend that line.") from error
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, one['loc'])) or 'the whole'!r}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors()
        ]
        what = "that entry" if len(faults) == 1 else "those entries"
        raise TargetError(f"{_upper_first(source)} does not fit at {'; '.join(faults)}; mend {what}.") from error


def _upper_first(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
