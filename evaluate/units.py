"""What is drawn as a whole when photos are resampled: single ones, blocks of consecutive ones or of ground, folders."""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from salakseg.data.patches import Photo, natural_key

UnitKind = Literal["block", "photo", "folder"]


def units_of(
    photos: Sequence[Photo],
    kind: UnitKind,
    gap: int,
    places: Mapping[Photo, int],
    ground_blocks: Collection[Photo] = frozenset(),
) -> list[int]:
    """The unit of each photo.

    Args:
        photos: The photos that were measured.
        kind: "photo": each for itself; "block": consecutive photos together, as many as show the same ground;
            "folder": all of a folder.
        gap: Photos after which two of a flight share no ground any more, see `SplitPlan`; a block has gap + 1.
        places: Place of each along its flight, see `flight_places`: as the split saw them, among all photos. Those that
            were measured alone would not tell how far apart they are.
        ground_blocks: Those of the photos that are blocks of ground already, see `PatchIndex`. Each is a block by
            itself, together with what other folders have of the same ground.

    Returns:
        Number of the unit of each photo, from 0 on without a hole.
    """
    keys: Mapping[Photo, object]
    if kind == "photo":
        keys = {photo: photo for photo in photos}
    elif kind == "folder":
        keys = {photo: photo.folder for photo in photos}
    else:
        flown = [photo for photo in photos if photo not in ground_blocks]
        keys = _blocks(flown, gap, places) | {photo: photo.name for photo in photos if photo in ground_blocks}
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys[photo] for photo in photos))}
    return [numbers[keys[photo]] for photo in photos]


def _blocks(photos: Sequence[Photo], gap: int, places: Mapping[Photo, int]) -> dict[Photo, object]:
    """Runs of photos along a flight; a run ends after gap + 1 photos, or where the next one is further than the gap."""
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
