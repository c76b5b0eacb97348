"""What was found in labels, to be told to the user: nothing is left out in silence."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from salakseg.classes import Color

_SHOWN = 5


@dataclass(slots=True)
class Stranger:
    """A colour in no class.

    Attributes:
        pixels: How many have it.
        place: Where the first one is, in words.
    """

    pixels: int
    place: str


@dataclass(slots=True)
class LabelFacts:
    """What one label file holds for one source.

    Attributes:
        path: The label file.
        kind: What it is, in words.
        of: The source that the counts are of; None if they are of the whole file.
        column: Column that the classes came from; None where there are no columns.
        shapes: Shapes of each class in the file, by class name.
        left_out: Shapes that could not be used, by reason.
        mended: Shapes whose outline crossed itself or was otherwise not valid.
        slivers: Shapes of less than a pixel's area on this source; they are burned where they hold a pixel's centre.
        strangers: Colours in no class; their pixels are 255.
        notes: Whatever else the user should know, a sentence each.
    """

    path: Path
    kind: str
    of: Path | None = None
    column: str | None = None
    shapes: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    mended: int = 0
    slivers: int = 0
    strangers: dict[Color, Stranger] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def summarise(facts: Iterable[LabelFacts]) -> list[str]:
    """Lines for the user on all labels that were used.

    Args:
        facts: One for each labelled source; a file that several sources share is counted once.

    Returns:
        Lines without an end of line.
    """
    everything = list(facts)
    files = {(fact.path, fact.of): fact for fact in everything}
    lines = [_files_line(kind, found) for kind, found in _by_kind(files.values()).items()]
    lines += sorted({f"Classes are from column {fact.column!r}." for fact in files.values() if fact.column is not None})
    shapes = sum((fact.shapes for fact in files.values()), Counter[str]())
    if shapes:
        lines.append("Shapes: " + ", ".join(f"{name} {count:,}" for name, count in shapes.most_common()) + ".")
    for reason, count in sorted(sum((fact.left_out for fact in files.values()), Counter[str]()).items()):
        first = next(fact.path for fact in files.values() if fact.left_out[reason])
        lines.append(f"Left out: {_count(count, 'shape')} {reason}, first in {first}.")
    mended = sum(fact.mended for fact in files.values())
    if mended:
        lines.append(f"{_count(mended, 'shape')} with an outline that is not valid: mended.")
    slivers = sum(fact.slivers for fact in everything)
    if slivers:
        lines.append(f"{_count(slivers, 'shape')} below a pixel's area: burned only where they hold a pixel's centre.")
    lines += _stranger_lines(list(files.values()))
    lines += sorted({note for fact in files.values() for note in fact.notes})
    return lines


def _by_kind(files: Iterable[LabelFacts]) -> dict[str, list[Path]]:
    kinds: dict[str, dict[Path, None]] = {}
    for fact in files:
        kinds.setdefault(fact.kind, {})[fact.path] = None
    return {kind: list(paths) for kind, paths in kinds.items()}


def _files_line(kind: str, paths: list[Path]) -> str:
    return f"Labels: {kind}, {paths[0]}." if len(paths) == 1 else f"Labels: {kind}, {len(paths):,} files."


def _stranger_lines(files: list[LabelFacts]) -> list[str]:
    pixels: Counter[Color] = Counter()
    for fact in files:
        for color, stranger in fact.strangers.items():
            pixels[color] += stranger.pixels
    lines = []
    for color, count in pixels.most_common(_SHOWN):
        first = next(fact for fact in files if color in fact.strangers)
        lines.append(
            f"Colour {' '.join(map(str, color))} is in no class: {_count(count, 'pixel')} ignored (255), first in "
            f"{first.path}{first.strangers[color].place}."
        )
    if len(pixels) > _SHOWN:
        rest = sum(count for _, count in pixels.most_common()[_SHOWN:])
        lines.append(f"{len(pixels) - _SHOWN:,} more colours are in no class: {_count(rest, 'pixel')} ignored (255).")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
