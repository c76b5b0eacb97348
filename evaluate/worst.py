"""Which patches to look at: where each class goes wrong most, each confusion is largest, and the heads differ most.

Only the names of the patches are kept while all of them pass by; pictures are made of a few afterwards.
Axes: K class.
"""

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salakseg.data.patches import Patch

PATCHES_A_CLASS = 3
PATCHES_OF_DISAGREEMENT = 4


class WorstPatches:
    """Keeps the worst patches seen so far.

    Args:
        classes: K.
    """

    def __init__(self, classes: int) -> None:
        self._by_class: list[list[tuple[int, int, Patch]]] = [[] for _ in range(classes)]
        self._of_pair: dict[tuple[int, int], tuple[int, Patch]] = {}
        self._disagreement: list[tuple[float, int, Patch]] = []
        self._seen = 0

    def add(self, patch: Patch, counts_KK: NDArray[np.int64], disagreement: float) -> None:
        """Takes a patch.

        Args:
            patch: Which one.
            counts_KK: Its confusion matrix.
            disagreement: Share of its pixels on which the heads differ.
        """
        self._seen += 1
        hits = counts_KK.diagonal()
        wrong_K = counts_KK.sum(axis=0) + counts_KK.sum(axis=1) - 2 * hits
        for k in np.flatnonzero(wrong_K):
            # The number breaks ties, in favour of the patch that came first
            _keep(self._by_class[k], (int(wrong_K[k]), -self._seen, patch), PATCHES_A_CLASS)
        for truth, guess in np.argwhere(counts_KK):
            pair, pixels = (int(truth), int(guess)), int(counts_KK[truth, guess])
            if truth != guess and pixels > self._of_pair.get(pair, (0, patch))[0]:
                self._of_pair[pair] = (pixels, patch)
        if disagreement > 0:
            _keep(self._disagreement, (disagreement, -self._seen, patch), PATCHES_OF_DISAGREEMENT)

    def of_class(self, class_id: int) -> list[tuple[int, Patch]]:
        """The patches with most wrong pixels of a class, missed or invented, the worst first."""
        return [(pixels, patch) for pixels, _, patch in sorted(self._by_class[class_id], reverse=True)]

    def of_pair(self, truth: int, prediction: int) -> tuple[int, Patch] | None:
        """The patch with most pixels of one class taken for another."""
        return self._of_pair.get((truth, prediction))

    @property
    def of_disagreement(self) -> list[tuple[float, Patch]]:
        """The patches on which the heads differ most."""
        return [(share, patch) for share, _, patch in sorted(self._disagreement, reverse=True)]


def _keep(heap: list[Any], entry: Any, most: int) -> None:  # noqa: ANN401
    if len(heap) < most:
        heapq.heappush(heap, entry)
    else:
        heapq.heappushpop(heap, entry)
