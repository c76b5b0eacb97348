"""Candidates that show what is labelled already, or what another one shows: by ground where it is known, else by name.

Axes: M candidate, L labelled.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from salakseg.data.patches import Photo
from salakseg.data.splits import flight_places
from salakseg.suggest.candidates import Candidates, Unit

_APART = 1e9  # metres between the planes of different sources


class Neighbourhood:
    """Which candidates are near each other.

    Two candidates whose place is known are near if their middles are less than `distance` metres apart. Others are near
    if they are of photos of one folder whose numbers differ by at most `gap`: drone photos overlap their neighbours.

    Args:
        found: All candidates.
        photos: For each source the photo of each number in the second column of its keys; None for an orthomosaic.
        distance: Metres.
        gap: Photos; 0 makes only patches of the same photo near each other.
        unit: What a candidate is. Two patches of one photo, whose places are not known, count as different ground.
    """

    def __init__(
        self, found: Candidates, photos: Sequence[Sequence[Photo] | None], distance: float, gap: int, unit: Unit
    ) -> None:
        self._found, self._distance, self._gap, self._unit = found, distance, gap, unit
        self._known_M: NDArray[np.bool_] = np.asarray(np.isfinite(found.ground_M2).all(axis=1))
        self._plane_M3 = np.column_stack([found.ground_M2, found.key_M4[:, 0] * _APART])
        self._folder_M = np.full(len(found.key_M4), -1)
        self._flight_M = np.zeros(len(found.key_M4), np.int64)
        folders: dict[tuple[int, str], int] = {}
        for source, of_source in enumerate(photos):
            if of_source is None:
                continue
            places = flight_places(list(of_source))
            for row in np.flatnonzero(found.key_M4[:, 0] == source):
                photo = of_source[found.key_M4[row, 1]]
                self._folder_M[row] = folders.setdefault((source, photo.folder), len(folders))
                self._flight_M[row] = places[photo]

    def labelled(self) -> NDArray[np.bool_]:
        """Which candidates are labelled or near to labelled ones, bool [M]. All of a photo goes with its labels."""
        found = self._found
        taken_M: NDArray[np.bool_] = found.labelled_M.copy()
        known_L = np.flatnonzero(found.labelled_M & self._known_M)
        if len(known_L):
            tree = cKDTree(self._plane_M3[known_L])
            known_M = np.flatnonzero(self._known_M)
            apart_M, _ = tree.query(self._plane_M3[known_M])
            taken_M[known_M[np.flatnonzero(apart_M < self._distance)]] = True
        named_L = np.flatnonzero(found.labelled_M & ~self._known_M)
        for folder in np.unique(self._folder_M[named_L]):
            places = np.unique(self._flight_M[named_L][self._folder_M[named_L] == folder])
            mine_M = np.flatnonzero((self._folder_M == folder) & ~self._known_M)
            after = np.searchsorted(places, self._flight_M[mine_M])
            before_M = np.abs(self._flight_M[mine_M] - places[np.maximum(after - 1, 0)])
            after_M = np.abs(places[np.minimum(after, len(places) - 1)] - self._flight_M[mine_M])
            taken_M[mine_M[np.flatnonzero(np.minimum(before_M, after_M) <= self._gap)]] = True
        return taken_M

    def of(self, candidate: int, among: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which of some candidates are near to one, itself included.

        Args:
            candidate: Which one.
            among: Places of the others.
        """
        if self._known_M[candidate]:
            apart = np.linalg.norm(self._plane_M3[among] - self._plane_M3[candidate], axis=1)
            return np.asarray(np.nan_to_num(apart, nan=np.inf) < self._distance)
        apart_M = np.abs(self._flight_M[among] - self._flight_M[candidate])
        same_folder = (self._folder_M[among] == self._folder_M[candidate]) & ~self._known_M[among]
        near: NDArray[np.bool_] = same_folder & (apart_M <= self._gap)
        if self._unit != "photo":
            near &= apart_M > 0
        return near
