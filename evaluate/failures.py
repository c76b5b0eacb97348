"""Where a network fails: photos and folders, confused classes, and whether errors lie at borders or inside.

Axes: K class, P photo, U unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salakseg.data.patches import Photo
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.formats import finite_or_none
from salakseg.evaluate.metrics import Metrics, compute_metrics

MOST_PAIRS = 6


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """The figures of one photo or one folder.

    Attributes:
        folder: Folder below the data root, "" for the plain layout.
        photo: Name of the photo; "" for a whole folder.
        patches: Patches measured.
        metrics: Figures over them.
    """

    folder: str
    photo: str
    patches: int
    metrics: Metrics

    @property
    def pixels(self) -> int:
        """Labelled pixels."""
        return int(self.metrics.support.sum())

    @property
    def name(self) -> str:
        """The place for people."""
        name = "/".join(part for part in (self.folder, self.photo) if part) or "(root)"
        return name.encode("utf-8", "replace").decode("utf-8")  # a file's name can hold any byte

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"folder": self.folder, "photo": self.photo, "patches": self.patches, "metrics": self.metrics.to_dict()}


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """Pixels of one class that were taken for another.

    Attributes:
        truth: Class id.
        prediction: Class id.
        pixels: How many.
        share_of_truth: Of the true class's pixels, 0 to 1.
        share_of_errors: Of all wrong pixels, 0 to 1.
    """

    truth: int
    prediction: int
    pixels: int
    share_of_truth: float
    share_of_errors: float


@dataclass(frozen=True, slots=True)
class ErrorPlaces:
    """Where wrong pixels lie.

    Attributes:
        near: Share of them within `distances` of a border between two classes of the truth, 0 to 1; NaN without errors.
        pixels_near: Share of all pixels that lie there: what blind chance would give.
        distances: Distances in pixels that were used, one for each size of patch.
    """

    near: float
    pixels_near: float
    distances: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        return {
            "near_border": finite_or_none(self.near),
            "pixels_near_border": finite_or_none(self.pixels_near),
            "distances_px": list(self.distances),
        }


def places_of(
    photos: Sequence[Photo], patches_P: NDArray[np.int64], counts_PKK: NDArray[np.int64]
) -> tuple[Place, ...]:
    """The figures of every photo, in order."""
    return tuple(
        Place(photo.folder, photo.name, int(patches), compute_metrics(ConfusionMatrix.from_counts(counts)))
        for photo, patches, counts in zip(photos, patches_P, counts_PKK, strict=True)
    )


def folders_of(
    photos: Sequence[Photo], patches_P: NDArray[np.int64], counts_PKK: NDArray[np.int64]
) -> tuple[Place, ...]:
    """The figures of every folder, which is mostly a farm or a flight, in order."""
    names = np.array([photo.folder for photo in photos], dtype=object)
    places = []
    for name in dict.fromkeys(names.tolist()):
        inside = names == name
        matrix = ConfusionMatrix.from_counts(counts_PKK[inside].sum(axis=0))
        places.append(Place(name, "", int(patches_P[inside].sum()), compute_metrics(matrix)))
    return tuple(places)


def confused_pairs(counts_KK: NDArray[np.int64]) -> tuple[ConfusedPair, ...]:
    """The confusions with most pixels, the largest first."""
    wrong = counts_KK.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(wrong, axis=None, kind="stable")[::-1][:MOST_PAIRS]
    pairs = [(int(cell // len(wrong)), int(cell % len(wrong))) for cell in order]
    return tuple(
        ConfusedPair(
            truth,
            guess,
            int(wrong[truth, guess]),
            float(wrong[truth, guess] / counts_KK[truth].sum()),
            float(wrong[truth, guess] / wrong.sum()),
        )
        for truth, guess in pairs
        if wrong[truth, guess] > 0
    )


def error_places(near_P4: NDArray[np.int64], distances: set[int]) -> ErrorPlaces:
    """Sums up what `EdgeTally` counted."""
    near_wrong, wrong, near, valid = near_P4.sum(axis=0).tolist()
    return ErrorPlaces(
        near_wrong / wrong if wrong else np.nan, near / valid if valid else np.nan, tuple(sorted(distances))
    )
