"""Findings on what the masks say: colours of no class, channels that have changed places, nothing at all."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from salakseg.check.finding import MOST_EXAMPLES, Finding, Severity, counted, listed
from salakseg.check.record import FINE, MODES, reversed_pixels
from salakseg.check.scan import Scan
from salakseg.classes import ClassMap, Color
from salakseg.data.survey import Survey

_KINDS = {"L": "grey", "LA": "grey", "1": "grey", "I": "grey", "I;16": "grey", "P": "palette"}

_REVERSED = 0.5
"""Share of a mask's strangers that must be a class's colour backwards for it to be taken as written in BGR."""


def mask_findings(scan: Scan) -> Iterator[Finding]:
    """What is strange about the masks that can be read."""
    masks = scan.masks
    if scan.survey.is_misread(len(scan.class_map)):
        yield _misread(scan)
    backwards = masks["reversed"] > _REVERSED * masks["unknown"]
    rows = np.flatnonzero(backwards)
    if len(rows):
        rows = rows[np.argsort(-masks["reversed"][rows], kind="stable")]
        yield _reversed(
            len(rows),
            int(masks["reversed"].sum()),
            tuple(scan.mask_name(int(row)) for row in rows[:MOST_EXAMPLES]),
            tuple(f"{int(masks['reversed'][row]):,} pixels" for row in rows[:MOST_EXAMPLES]),
        )
    rows = np.flatnonzero((masks["unknown"] > 0) & ~backwards)
    if len(rows):
        rows = rows[np.argsort(-masks["unknown"][rows], kind="stable")]
        yield _unknown(
            len(rows),
            int(masks["unknown"][rows].sum()),
            scan.survey.unknown,
            scan.class_map,
            tuple(scan.mask_name(int(row)) for row in rows[:MOST_EXAMPLES]),
            tuple(
                f"{masks['unknown'][row]:,} pixels, {_share(masks['unknown'][row], masks[row])} of it"
                for row in rows[:MOST_EXAMPLES].tolist()
            ),
        )
    yield from _mixed(scan)
    empty = np.flatnonzero((masks["state"] == FINE) & (masks["labelled"] == 0))
    if len(empty):
        yield Finding(
            "empty-mask",
            Severity.NOTE,
            len(empty),
            tuple(scan.mask_name(int(row)) for row in empty[:MOST_EXAMPLES]),
            f"{counted(len(empty), 'mask holds', 'masks hold')} no labelled pixel; the patches count as labelled, and "
            "nothing is learned from them.",
            "Remove such masks: without one, a patch is unlabelled and helps in self-training.",
        )


def survey_findings(survey: Survey, class_map: ClassMap) -> Iterator[Finding]:
    """What a survey alone tells of colours: the same findings, without pixels by mask.

    Args:
        survey: Of some masks.
        class_map: What they were read by.
    """
    if not survey.unknown:
        return
    total = survey.unknown.total()
    files = tuple(survey.unknown_files[:MOST_EXAMPLES])
    backwards = reversed_pixels(survey.unknown, class_map)
    if backwards > _REVERSED * total:
        yield _reversed(len(survey.unknown_files), backwards, files)
    else:
        yield _unknown(len(survey.unknown_files), total, survey.unknown, class_map, files)


def _misread(scan: Scan) -> Finding:
    colors = listed([str(color) for color, _ in scan.survey.unknown.most_common(3)])
    rows = np.flatnonzero(scan.masks["state"] == FINE)
    return Finding(
        "misread",
        Severity.ERROR,
        len(rows),
        tuple(scan.mask_name(int(row)) for row in rows[:MOST_EXAMPLES]),
        f"{'Of the masks hardly a pixel is understood' if colors else 'Every pixel of the masks is 255'} by "
        f"{scan.class_map.source}, and training refuses them"
        f"{f'; they hold the colours {colors}' if colors else ''}.",
        "Name the class mapping that they were drawn by with --class-mapping, a colour for every class in it.",
    )


def _reversed(count: int, pixels: int, names: tuple[str, ...], details: tuple[str, ...] = ()) -> Finding:
    return Finding(
        "reversed-colour",
        Severity.ERROR,
        count,
        names,
        f"{counted(count, 'mask has', 'masks have')} {pixels:,} pixels in colours that are no class's, but are once "
        "red and blue change places: they were written in BGR order, and these pixels are ignored.",
        "Write the masks anew in RGB order; OpenCV's imwrite takes BGR.",
        details,
    )


def _unknown(
    count: int,
    pixels: int,
    colors: Counter[Color],
    class_map: ClassMap,
    names: tuple[str, ...],
    details: tuple[str, ...] = (),
) -> Finding:
    seen = [
        (color, number)
        for color, number in colors.most_common(8)
        if not reversed_pixels(Counter({color: 1}), class_map)
    ]
    first = ", ".join(f"{color} {number:,} px" for color, number in (seen or colors.most_common(3))[:3])
    more = f" and {len(colors) - 3:,} more" if len(colors) > 3 else ""
    return Finding(
        "unknown-colour",
        Severity.WARNING,
        count,
        names,
        f"{counted(count, 'mask holds', 'masks hold')} {pixels:,} pixels in colours of no class ({first}{more}); they "
        "are ignored, not background.",
        "If they mean a class, mend the colours or the class mapping; if they mean unlabelled, nothing has to be done.",
        details,
    )


def _mixed(scan: Scan) -> Iterator[Finding]:
    """Palette, grey and RGB masks side by side: each is read rightly, but they came about in different ways."""
    rows = np.flatnonzero(scan.masks["state"] == FINE)
    found: dict[str, list[int]] = {}
    for row in rows.tolist():
        mode = int(scan.masks["mode"][row])
        name = MODES[mode] if mode < len(MODES) else "?"
        found.setdefault(_KINDS.get(name, "RGB"), []).append(row)
    if len(found) < 2:
        return
    kinds = sorted(found, key=lambda kind: -len(found[kind]))
    counts = listed([f"{len(found[kind]):,} {kind}" for kind in kinds])
    yield Finding(
        "mixed-masks",
        Severity.NOTE,
        len(rows),
        tuple(scan.mask_name(found[kind][0]) for kind in kinds),
        f"Side by side are {counts} masks; every kind is read by the class mapping.",
        "Nothing has to be done; look at one of each to see that the same colour means the same class.",
        tuple(f"the first {kind} one" for kind in kinds),
    )


def _share(pixels: int, mask: np.void) -> str:
    share = 100 * int(pixels) / max(1, int(mask["height"]) * int(mask["width"]))
    return f"{share:.1f} %" if share >= 0.1 else "less than 0.1 %"
