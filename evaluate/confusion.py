"""The one thing that is counted: pixels by true and by predicted class. Every figure is derived from it."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from salakseg.classes import IGNORE_INDEX, MAX_CLASSES


class ConfusionMatrix:
    """Counts of pixels, rows = truth, columns = prediction.

    Args:
        num_classes: K, 1 to 254.

    Raises:
        ValueError: K outside that range.
    """

    def __init__(self, num_classes: int) -> None:
        if not 1 <= num_classes <= MAX_CLASSES:
            raise ValueError(f"a confusion matrix has 1 to {MAX_CLASSES} classes, not {num_classes}")
        self._counts = np.zeros((num_classes, num_classes), dtype=np.int64)

    @classmethod
    def from_counts(cls, counts: ArrayLike) -> Self:
        """A matrix from counts that were stored.

        Args:
            counts: [K, K] whole numbers of 0 or more, rows = truth, columns = prediction.

        Raises:
            ValueError: Not square, not whole or negative.
        """
        array = np.asarray(counts)
        if array.ndim != 2 or array.shape[0] != array.shape[1]:
            raise ValueError(f"confusion counts have shape {array.shape}, expected [K, K]")
        if not np.issubdtype(array.dtype, np.integer) or (array < 0).any():
            raise ValueError("confusion counts must be whole numbers of 0 or more")
        matrix = cls(len(array))
        matrix._counts += array.astype(np.int64)
        return matrix

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self._counts)

    @property
    def counts(self) -> NDArray[np.int64]:
        """The counts [K, K], int64, rows = truth, columns = prediction; a view that cannot be written to."""
        view = self._counts.view()
        view.flags.writeable = False
        return view

    def update(self, label: NDArray[np.integer[Any]], prediction: NDArray[np.integer[Any]]) -> None:
        """Counts the pixels of one or more patches.

        A pixel with label 255 is skipped, whatever is predicted there. The matrix is unchanged when this raises.

        Args:
            label: True class ids of any shape, any integer dtype, each 0 to K-1 or 255.
            prediction: Predicted class ids in the same shape, each 0 to K-1.

        Raises:
            ValueError: Shapes differ, a dtype is not an integer, or an id is outside 0 to K-1.
        """
        if label.shape != prediction.shape:
            raise ValueError(f"label has shape {label.shape} but prediction has {prediction.shape}")
        for name, array in (("label", label), ("prediction", prediction)):
            if not np.issubdtype(array.dtype, np.integer):
                raise ValueError(f"{name} is {array.dtype}, expected class ids of an integer dtype")
        known = label != IGNORE_INDEX
        truth, guess = label[known], prediction[known]
        if truth.size == 0:
            return
        self._refuse_outside("label", truth)
        self._refuse_outside("prediction", guess)
        size = self.num_classes
        # Ids are widened first: row times K overflows the uint8 of a label.
        cells = truth.astype(np.intp)
        cells *= size
        cells += guess.astype(np.intp)
        self._counts += np.bincount(cells, minlength=size * size).reshape(size, size)

    def merge(self, other: "ConfusionMatrix") -> None:
        """Adds the counts of another matrix to this one.

        Raises:
            ValueError: The other matrix has another number of classes.
        """
        if other.num_classes != self.num_classes:
            raise ValueError(f"cannot merge matrices of {self.num_classes} and {other.num_classes} classes")
        self._counts += other._counts

    def copy(self) -> "ConfusionMatrix":
        """A matrix of its own with the same counts."""
        return ConfusionMatrix.from_counts(self._counts)

    def normalised(self) -> NDArray[np.float64]:
        """Each row divided by its sum: where the pixels of a true class went.

        Returns:
            [K, K] float64, 0 to 1, rows sum to 1; NaN in the row of a class without truth pixels.
        """
        totals = self._counts.sum(axis=1, keepdims=True)
        shares = np.full(self._counts.shape, np.nan)
        np.divide(self._counts, totals, out=shares, where=totals > 0)
        return shares

    def __add__(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        total = self.copy()
        total.merge(other)
        return total

    def __repr__(self) -> str:
        return f"ConfusionMatrix({self.num_classes} classes, {self._counts.sum()} pixels)"

    def _refuse_outside(self, name: str, ids: NDArray[np.integer[Any]]) -> None:
        for extreme in (int(ids.min()), int(ids.max())):
            if not 0 <= extreme < self.num_classes:
                raise ValueError(f"{name} holds class id {extreme}, outside 0 to {self.num_classes - 1}")
