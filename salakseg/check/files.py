"""Findings on single files: what cannot be read, and what is read otherwise than it was meant."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from salakseg.check.finding import MOST_EXAMPLES, Finding, Severity, counted
from salakseg.check.record import BAD_INDEX, FINE, MODES, UNREADABLE, UNUSABLE
from salakseg.check.scan import Scan

Flags = NDArray[np.bool_]


def file_findings(scan: Scan) -> Iterator[Finding]:
    """What is wrong with pictures and masks one by one."""
    pictures, masks = scan.pictures, scan.masks
    fine = pictures["state"] == FINE
    yield from _of_pictures(
        scan,
        "unreadable-picture",
        Severity.ERROR,
        pictures["state"] == UNREADABLE,
        "{} damaged, truncated or no picture at all; training leaves them out, up to 1 % of the patches.",
        "Copy these files anew from where they come from, or remove them with their masks.",
    )
    yield from _of_masks(
        scan,
        "unreadable-mask",
        Severity.ERROR,
        masks["state"] == UNREADABLE,
        "{} damaged, truncated or no picture at all; training leaves them out, up to 1 % of the patches.",
        "Copy these files anew from where they come from, or remove them, which makes their patches unlabelled.",
    )
    yield from _of_pictures(
        scan,
        "deep-picture",
        Severity.ERROR,
        pictures["state"] == UNUSABLE,
        "{} of more than 8 bits a channel, which training refuses.",
        "Convert them to 8 bits with one stretch for all, or the folders will differ in brightness.",
    )
    yield from _of_masks(
        scan,
        "mask-kind",
        Severity.ERROR,
        masks["state"] == UNUSABLE,
        "{} of a kind that is neither indices nor colours.",
        "Save them as index PNGs, or in the colours of the class mapping.",
    )
    yield from _of_masks(
        scan,
        "index-out-of-range",
        Severity.ERROR,
        masks["state"] == BAD_INDEX,
        f"{{}} holding an index that is no class: the class mapping has the ids 0 to {len(scan.class_map) - 1}, and "
        "255 is ignored.",
        "Name the class mapping that they were drawn by, with --class-mapping, or mend the masks.",
    )
    yield from _sizes(scan, fine)
    yield from _of_pictures(
        scan,
        "grey",
        Severity.WARNING,
        fine & pictures["grey"] & ~pictures["constant"],
        "{} grey, and the network learns from colour.",
        "Export them in colour, or leave grey sources out.",
    )
    clear = fine & pictures["transparent"]
    with_alpha = fine & np.isin(pictures["mode"], [MODES.index(mode) for mode in ("RGBA", "LA", "PA")])
    yield from _of_pictures(
        scan,
        "alpha",
        Severity.WARNING if clear.any() else Severity.NOTE,
        clear if clear.any() else with_alpha,
        "{} partly transparent, and the colours beneath are trained on as if they were ground."
        if clear.any()
        else "{} opaque, but with an alpha channel, which is dropped.",
        "Make what is transparent 255 in the masks, or leave these patches out."
        if clear.any()
        else "Nothing has to be done; three channels take less room.",
    )
    yield from _of_pictures(
        scan,
        "turned",
        Severity.WARNING,
        fine & pictures["turned"],
        "{} to be turned by viewers, as EXIF says; training reads the pixels as they are stored, and a mask that was "
        "drawn in a viewer does not lie on them.",
        "Turn the pixels themselves and remove the EXIF orientation, then see that the masks fit.",
    )
    yield from _of_pictures(
        scan,
        "constant",
        Severity.WARNING,
        fine & pictures["constant"],
        "{} of a single colour, such as ground that was not flown; nothing can be learned from it.",
        "Remove them, or cut the patches anew without what is not valid.",
    )


def _of_pictures(
    scan: Scan, kind: str, severity: Severity, flags: Flags, message: str, remedy: str
) -> Iterator[Finding]:
    places = np.flatnonzero(flags)
    if len(places):
        first = places[:MOST_EXAMPLES].tolist()
        details = tuple(_reason(scan, place, "picture") for place in first)
        subject = counted(len(places), "picture is", "pictures are")
        names = tuple(scan.image_name(place) for place in first)
        yield _finding(kind, severity, len(places), names, message.format(subject), remedy, details)


def _of_masks(scan: Scan, kind: str, severity: Severity, flags: Flags, message: str, remedy: str) -> Iterator[Finding]:
    rows = np.flatnonzero(flags)
    if len(rows):
        first = rows[:MOST_EXAMPLES].tolist()
        details = tuple(_reason(scan, int(scan.labelled[row]), "mask") for row in first)
        subject = counted(len(rows), "mask is", "masks are")
        names = tuple(scan.mask_name(row) for row in first)
        yield _finding(kind, severity, len(rows), names, message.format(subject), remedy, details)


def _finding(
    kind: str,
    severity: Severity,
    count: int,
    names: tuple[str, ...],
    message: str,
    remedy: str,
    details: tuple[str, ...],
) -> Finding:
    return Finding(kind, severity, count, names, message, remedy, details if any(details) else ())


def _reason(scan: Scan, place: int, what: str) -> str:
    """Why a file cannot be used, without its path, which stands beside it, and which Pillow spells out once more."""
    reason = scan.reasons.get((place, what), "")
    patch = scan.patches[place]
    path = scan.index.image_path(patch) if what == "picture" else scan.index.mask_path(patch)
    reason = reason.replace(repr(str(path)), "").replace(str(path), "").partition(";")[0]
    return " ".join(reason.split()).replace(" )", ")").rstrip(".")


def _sizes(scan: Scan, fine: Flags) -> Iterator[Finding]:
    pictures, masks = scan.pictures, scan.masks
    size_N2 = np.stack([pictures["width"], pictures["height"]], axis=1)[fine]
    sizes, first, counts = np.unique(size_N2, axis=0, return_index=True, return_counts=True)
    if len(sizes) > 1:
        order = np.argsort(-counts, kind="stable")[:MOST_EXAMPLES]
        places = np.flatnonzero(fine)[first[order]]
        low, high = size_N2.min(axis=0), size_N2.max(axis=0)
        yield Finding(
            "sizes",
            Severity.NOTE,
            len(sizes),
            tuple(scan.image_name(int(place)) for place in places),
            f"The pictures have {len(sizes)} sizes, {low[0]} to {high[0]} pixels wide and {low[1]} to {high[1]} high.",
            "Nothing has to be done if all have the same metres a pixel; patches of one size load fastest.",
            tuple(
                f"{sizes[which, 0]} x {sizes[which, 1]}, like {counted(int(counts[which]), 'picture')}"
                for which in order.tolist()
            ),
        )
    pairs = pictures[scan.labelled]
    differ = (masks["height"] != pairs["height"]) | (masks["width"] != pairs["width"])
    rows = np.flatnonzero((masks["state"] == FINE) & (pairs["state"] == FINE) & differ)
    if len(rows):
        shown = rows[:MOST_EXAMPLES].tolist()
        yield Finding(
            "mask-size",
            Severity.ERROR,
            len(rows),
            tuple(scan.mask_name(row) for row in shown),
            f"{counted(len(rows), 'mask differs', 'masks differ')} in size from the picture, and training refuses "
            f"{'it' if len(rows) == 1 else 'them'}.",
            "Bring both to the same size; resize a mask by nearest neighbour only.",
            tuple(
                f"{masks[row]['width']} x {masks[row]['height']}, its picture "
                f"{pairs[row]['width']} x {pairs[row]['height']}"
                for row in shown
            ),
        )
