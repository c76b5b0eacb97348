"""What is drawn as a whole when photos are resampled: single photos, blocks of consecutive ones, or folders."""

from collections.abc import Mapping, Sequence
from typing import Literal

from salakseg.data.patches import Photo, natural_key
from salakseg.data.splits import flight_places

UnitKind = Literal["block", "photo", "folder"]


def units_of(photos: Sequence[Photo], kind: UnitKind, gap: int) -> list[int]:
    """The unit of each photo.

    Args:
        photos: The photos that were measured.
        kind: "photo": each for itself; "block": consecutive photos together, as many as show the same ground;
            "folder": all of a folder.
        gap: Photos after which two of a flight share no ground any more, see `SplitPlan`; a block has gap + 1.

    Returns:
        Number of the unit of each photo, from 0 on without a hole.
    """
    keys: Mapping[Photo, object]
    if kind == "photo":
        keys = {photo: photo for photo in photos}
    elif kind == "folder":
        keys = {photo: photo.folder for photo in photos}
    else:
        keys = _blocks(photos, gap)
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys[photo] for photo in photos))}
    return [numbers[keys[photo]] for photo in photos]


def _blocks(photos: Sequence[Photo], gap: int) -> dict[Photo, object]:
    """Runs of photos along a flight; a run ends after gap + 1 photos, or where the next one is further than the gap."""
    places = flight_places(photos)
    blocks: dict[Photo, object] = {}
    start, previous = 0, Photo("", "")
    for photo in sorted(photos, key=lambda photo: (natural_key(photo.folder), places[photo])):
        together = (
            blocks
            and photo.folder == previous.folder
            and places[photo] - places[previous] <= gap
            and places[photo] - start <= gap
        )
        if not together:
            start = places[photo]
        blocks[photo] = (photo.folder, start)
        previous = photo
    return blocks
