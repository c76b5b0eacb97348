"""Figures of a patch folder: what the classes cover, what weights follow, and what the colours are like."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salakseg.check.parts import folder_pixels, part_pixels
from salakseg.check.record import FINE
from salakseg.check.scan import Scan
from salakseg.check.shift import channel_moments
from salakseg.classes import ClassMap
from salakseg.data.patches import natural_key
from salakseg.data.splits import HELD_OUT, Role, Split

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figures:
    """Of a folder, a part of the split, or everything.

    Attributes:
        name: Folder or role; "" for everything.
        patches: Pictures that could be read.
        labelled: Masks that could be read.
        pixels_K: Labelled pixels of each class, int64 [K].
        mean_C: Mean of each band over the pixels, 0 to 255, float64 [3]; NaN without a picture.
        std_C: Standard deviation of each band over the pixels, likewise.
    """

    name: str
    patches: int
    labelled: int
    pixels_K: NDArray[np.int64]
    mean_C: Floats
    std_C: Floats

    @property
    def shares_K(self) -> Floats:
        """Shares of the labelled pixels, float64 [K]; NaN where there are none."""
        total = int(self.pixels_K.sum())
        shares: Floats = self.pixels_K / total if total else np.full(len(self.pixels_K), np.nan)
        return shares

    def to_dict(self, class_map: ClassMap) -> dict[str, Any]:
        """Plain values for JSON; None where nothing is known."""
        weights_K = balanced_weights(self.pixels_K)
        return {
            "name": self.name,
            "patches": self.patches,
            "labelled": self.labelled,
            "classes": [
                {
                    "id": c.id,
                    "name": c.name,
                    "pixels": int(self.pixels_K[c.id]),
                    "share": _number(self.shares_K[c.id]),
                    "weight": _number(weights_K[c.id]),
                }
                for c in class_map.classes
            ],
            "mean": [_number(value) for value in self.mean_C],
            "std": [_number(value) for value in self.std_C],
        }


@dataclass(frozen=True, slots=True)
class Stats:
    """Figures of everything, by folder and by part.

    Attributes:
        class_map: The classes.
        everything: All patches.
        folders: In natural order.
        parts: Those of the split that have masks which could be read; empty without a split.
        unreadable: Pictures and masks that could not be used and are in no figure.
        unknown: Pixels in colours of no class, which are in no figure.
    """

    class_map: ClassMap
    everything: Figures
    folders: tuple[Figures, ...]
    parts: tuple[Figures, ...]
    unreadable: int
    unknown: int

    @property
    def trained(self) -> Figures:
        """What the class weights of a training come from: the part it learns from, everything without a split."""
        return next((part for part in self.parts if part.name == Role.LABELLED.value), self.everything)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "all": self.everything.to_dict(self.class_map),
            "folders": [one.to_dict(self.class_map) for one in self.folders],
            "parts": [one.to_dict(self.class_map) for one in self.parts],
            "unreadable": self.unreadable,
            "unknown_pixels": self.unknown,
        }


def balanced_weights(pixels_K: NDArray[np.int64]) -> Floats:
    """Weights by which every class has the same sum: 1 / (K s_k), with s_k the share of class k.

    The same as training takes with ``class_weights = "balanced"``.

    Args:
        pixels_K: Labelled pixels of each class, [K].

    Returns:
        float64 [K]; 1 for a class without a labelled pixel, whose weight no label can ever call up.
    """
    weights: Floats = pixels_K.sum() / (len(pixels_K) * np.maximum(pixels_K, 1))
    return np.where(pixels_K > 0, weights, 1.0)


def stats_of(scan: Scan, split: Split | None) -> Stats:
    """Figures of what a pass over the patches found.

    Args:
        scan: The pass.
        split: Parts of the photos; None if there are none.
    """
    classes = len(scan.class_map)
    none_K = np.zeros(classes, np.int64)
    pixels = folder_pixels(scan.survey, classes)
    folders = sorted({patch.folder for patch in scan.patches}, key=natural_key)
    by_folder = [
        _figures(scan, folder, _flags(scan, [p.folder == folder for p in scan.patches]), pixels.get(folder, none_K))
        for folder in folders
    ]
    parts = []
    if split is not None:
        of_part = part_pixels(scan.survey, split, classes)
        for role in (Role.LABELLED, *HELD_OUT):
            if role not in of_part:
                continue
            pixels_K = of_part[role]
            flags = [split.roles[p.photo_key] is role and p.mask is not None for p in scan.patches]
            parts.append(_figures(scan, role.value, _flags(scan, flags), pixels_K))
    total_K = scan.survey.total(list(scan.survey.pixels), classes)
    bad = (scan.pictures["state"] != FINE).sum() + (scan.masks["state"] != FINE).sum()
    return Stats(
        scan.class_map,
        _figures(scan, "", np.ones(len(scan.patches), bool), total_K),
        tuple(by_folder),
        tuple(parts),
        int(bad),
        int(scan.masks["unknown"].sum()),
    )


def _flags(scan: Scan, flags: list[bool]) -> NDArray[np.bool_]:
    return np.array(flags, bool).reshape(len(scan.patches))


def _figures(scan: Scan, name: str, inside_N: NDArray[np.bool_], pixels_K: NDArray[np.int64]) -> Figures:
    pictures = scan.pictures[inside_N]
    masks = scan.masks[inside_N[scan.labelled]]
    mean_C, std_C = channel_moments(pictures)
    fine = int((pictures["state"] == FINE).sum())
    return Figures(name, fine, int((masks["state"] == FINE).sum()), pixels_K, mean_C, std_C)


def _number(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
