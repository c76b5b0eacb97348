"""The ground that patches of photos cover, by where the photos were taken. Axes: N patches, four corners."""

import os
from collections.abc import Callable, Mapping
from math import degrees, radians
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salakseg.data.patches import IMAGE_SUFFIXES, PatchIndex, Photo
from salakseg.errors import DataError
from salakseg.mapping.geodesy import metres_a_radian
from salakseg.prepare.labelling.label_files import own_folder
from salakseg.prepare.parts.exif import Shot, read_shot
from salakseg.prepare.parts.footprints import Footprints

SOURCE = "photos"
"""What blocks of ground are called after that photos alone show."""


def find_photos(index: PatchIndex, folder: Path | None) -> dict[Photo, Path]:
    """The files of the photos that patches were cut from.

    Args:
        index: The patches.
        folder: Where the photos are, in this folder or in folders below it. Where several flights have a photo of the
            same name, its folder must have the name of the patches' folder. None takes pictures of the index that are
            whole photos themselves.

    Returns:
        File by photo; photos whose file is not there are missing.

    Raises:
        DataError: The folder does not exist, or several files could be a photo.
    """
    if folder is None:
        return {patch.photo_key: index.image_path(patch) for patch in index.patches if patch.is_whole_photo}
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name the folder with the photos with --photos.")
    files: dict[str, list[Path]] = {}
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name.casefold() != "masks")
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                files.setdefault(stem, []).append(Path(parent, name))
    photos = dict.fromkeys(patch.photo_key for patch in index.patches)
    data_folders = {photo.folder for photo in photos}
    found: dict[Photo, Path] = {}
    taken: dict[Path, Photo] = {}
    for photo in photos:
        path = _file_of(photo, files.get(photo.name, []), data_folders)
        if path is None:
            continue
        other = taken.setdefault(path, photo)
        if other != photo:
            raise DataError(
                f"{path} could be a photo of {photo.folder or 'the root'} and of {other.folder or 'the root'}; put the "
                "photos of each into a folder of the same name."
            )
        found[photo] = path
    return found


def photo_footprints(
    index: PatchIndex,
    photos: Mapping[Photo, Path],
    footprint_m: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Footprints:
    """Footprints of patches: each is taken to show all the ground of its photo.

    Args:
        index: The patches.
        photos: Files of their photos.
        footprint_m: Metres from corner to corner that a photo shows; None works it out from each photo.
        progress: Called with photos done and to do.

    Returns:
        Footprints, unknown where there is no photo or it has no place.

    Raises:
        DataError: A file is no photo, or does not tell how much ground it shows.
    """
    corners: dict[Photo, NDArray[np.float64]] = {}
    untold: list[Path] = []
    for done, (photo, path) in enumerate(photos.items(), start=1):
        shot = read_shot(path)
        if shot is not None:
            outline_42 = shot.outline(footprint_m)
            if outline_42 is None:
                untold.append(path)
            else:
                corners[photo] = _around(shot, outline_42)
        if progress is not None:
            progress(done, len(photos))
    if untold:
        raise DataError(
            f"{untold[0]}{_and_more(untold)} does not tell its height above the ground, its focal length, or looks too "
            "far aslant; say with --footprint how many metres of ground a photo shows from corner to corner."
        )
    unknown = np.full((4, 2), np.nan)
    corner_N42 = np.array([corners.get(patch.photo_key, unknown) for patch in index.patches]).reshape(-1, 4, 2)
    return Footprints(corner_N42, tuple(SOURCE if patch.photo_key in corners else "" for patch in index.patches))


def _file_of(photo: Photo, files: list[Path], data_folders: set[str]) -> Path | None:
    own = [path for path in files if own_folder(path) == photo.folder]
    # A file in the folder of another flight is another flight's photo of the same name
    free = own or [path for path in files if own_folder(path) not in data_folders]
    jpegs = [path for path in free if path.suffix.lower() in (".jpg", ".jpeg")]
    free = jpegs or free  # what has the name of a JPEG is its mask
    if len(free) > 1:
        raise DataError(
            f"{free[0]} and {free[1]} could both be photo {photo.name}; put the photos of "
            f"{photo.folder or 'the root'} into one folder of the same name."
        )
    return free[0] if free else None


def _around(shot: Shot, outline_42: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners in degrees."""
    east, north = metres_a_radian(radians(shot.latitude))
    step = np.array([degrees(1 / east), degrees(1 / north)])
    corner_42: NDArray[np.float64] = np.array([shot.longitude, shot.latitude]) + outline_42 * step
    return corner_42


def _and_more(paths: list[Path]) -> str:
    return "" if len(paths) == 1 else f" (and {len(paths) - 1} more)"
