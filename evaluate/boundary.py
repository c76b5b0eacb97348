"""Boundary IoU: how well the edges of a class are drawn, which the IoU of a large area hardly shows.

Cheng, Girshick, Dollar, Berg and Kirillov 2021, "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation",
equation 1: the IoU of the pixels that lie inside the truth and near its edge with those inside the prediction and near
its own. Near is within a distance in steps to one of eight neighbours, as the authors' repeated erosion has it.
Different here: the edge of a patch, and that of a part that nobody labelled, cuts through a class and is not its edge.

Axes: H row, W column, K class.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from salakseg.classes import IGNORE_INDEX

DISTANCE_SHARE = 0.02
"""Distance as a share of the picture's diagonal, the authors' value: 7 pixels in a patch of 256."""


def boundary_distance(height: int, width: int) -> int:
    """The distance in pixels that belongs to a picture, at least 1."""
    return max(1, round(DISTANCE_SHARE * float(np.hypot(height, width))))


def near_edge(label_HW: NDArray[np.uint8], valid_HW: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Which pixels have another class within a distance.

    Args:
        label_HW: Class ids, 0 to 254.
        valid_HW: Which pixels have one; the others are neither near anything nor anybody's neighbour.
        distance: Steps to one of eight neighbours, 1 or more.

    Returns:
        bool [H, W].
    """
    # A pixel sees another class exactly where the least and the greatest class around it differ: two filters do for
    # any number of classes. What is not valid is neutral in both.
    size = 2 * distance + 1
    greatest = np.where(valid_HW, label_HW, 0)
    least = np.where(valid_HW, label_HW, IGNORE_INDEX)
    for axis in (0, 1):
        greatest = maximum_filter1d(greatest, size, axis=axis, mode="constant", cval=0)
        least = minimum_filter1d(least, size, axis=axis, mode="constant", cval=IGNORE_INDEX)
    near: NDArray[np.bool_] = (greatest != least) & valid_HW
    return near


def boundary_counts(
    label_HW: NDArray[np.uint8],
    prediction_HW: NDArray[np.uint8],
    classes: int,
    distance: int,
    true_edge: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """What the boundary IoU of each class is made of.

    Args:
        label_HW: True class ids, 255 where nobody labelled.
        prediction_HW: Predicted class ids.
        classes: K.
        distance: See `near_edge`.
        true_edge: Result of `near_edge` for the truth, where it is at hand.

    Returns:
        int64 [K, 3]: pixels of the class near its edge in the truth, in the prediction, and in both.
    """
    valid_HW = label_HW != IGNORE_INDEX
    if true_edge is None:
        true_edge = near_edge(label_HW, valid_HW, distance)
    drawn_edge = near_edge(prediction_HW, valid_HW, distance)
    both = true_edge & drawn_edge & (label_HW == prediction_HW)
    parts = (label_HW[true_edge], prediction_HW[drawn_edge], label_HW[both])
    return np.stack([np.bincount(part, minlength=classes)[:classes] for part in parts], axis=1)


def boundary_iou(counts: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Boundary IoU from counts.

    Args:
        counts: [..., K, 3] as `boundary_counts` gives them, summed over any number of pictures.

    Returns:
        [..., K] float64, 0 to 1; NaN for a class without an edge in truth and prediction.
    """
    truth, drawn, both = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    union = truth + drawn - both
    ratio = np.full(union.shape, np.nan)
    np.divide(both, union, out=ratio, where=union > 0)
    return ratio
