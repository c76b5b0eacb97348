"""The change as text: a matrix, an object for programs, and what a reader must know of the figures."""

import csv
import io
from typing import Any

from salakseg.change.compare import Change

SCHEMA = "salakseg.change"
VERSION = 1


def matrix_csv(change: Change) -> str:
    """The transition matrix: a row for each class of the old map, a column for each of the new one.

    Hectares, or pixels where the maps do not say where they lie.
    """
    names = change.pair.class_map.names
    amounts_KK = change.pixels_KK if change.hectares_KK is None else change.hectares_KK
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["pixels" if change.hectares_KK is None else "hectares", *names])
    writer.writerows([name, *row] for name, row in zip(names, amounts_KK.tolist(), strict=True))
    return text.getvalue()


def to_dict(change: Change) -> dict[str, Any]:
    """All that is known, as plain values."""
    pair = change.pair
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "old": pair.old.path.name,
        "new": pair.new.path.name,
        "classes": list(pair.class_map.names),
        "grid": {"of": pair.grid_of, "width": pair.width, "height": pair.height},
        "pixels": change.pixels_KK.tolist(),
        "hectares": None if change.hectares_KK is None else change.hectares_KK.tolist(),
        "changed_share": change.share,
        "changed_pixels": change.changed_pixels,
        "thin_pixels": change.thin_pixels,
        "unsure_below_percent": change.unsure_below,
        "unsure_pixels": change.unsure_pixels,
        "pixels_with_confidence": change.told_pixels,
        "left_out_hectares": None if change.left_out_ha is None else list(change.left_out_ha),
        "remarks": sentences(change),
    }


def sentences(change: Change) -> list[str]:
    """What a reader must know, a sentence or two each."""
    pair = change.pair
    lines = [f"changed: {100 * change.share:.2f} % of the ground that both maps show"]
    finer = {"old": "new", "new": "old"}[pair.grid_of]
    if change.left_out_ha is not None:
        old, new = change.left_out_ha
        lines.append(
            f"grid: the {pair.grid_of} map's pixels, {pair.width} x {pair.height}; the {finer} map was laid on it; not "
            f"compared: {old:,.3f} ha of the old map and {new:,.3f} ha of the new one, where the other shows nothing"
        )
    if change.changed_pixels:
        lines.append(
            f"thin: {100 * change.thin_pixels / change.changed_pixels:.0f} % of the change is in strips less than "
            "three pixels wide, as maps have along every edge that do not lie exactly over each other"
        )
    if change.told_pixels:
        share = (change.unsure_pixels or 0) / change.told_pixels
        lines.append(
            f"unsure: on {100 * share:.0f} % of the changed pixels the confidence that was given is below "
            f"{change.unsure_below} %"
        )
    elif change.unsure_pixels is None:
        lines.append("unsure: not known; give --old-confidence and --new-confidence, rasters that predict writes")
    elif change.changed_pixels:
        lines.append("unsure: not known; the confidence that was given shows none of the changed ground")
    lines.append(
        "These hectares are counted, and both maps' errors are in them: two maps that are each 90 % right can differ "
        "on up to 19 % of ground that never changed. For figures with intervals label a sample of points "
        "(salakseg sample)."
    )
    return lines
