"""Drawing a stratified random sample from a land-cover map: how many points, how many on each class, which pixels.

Axes: K classes, N points.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from salakseg.errors import SampleError
from salakseg.evaluate.olofsson import sample_size
from salakseg.evaluate.strata import Digest, LandCover, walk

STANDARD_ERROR = 0.02
"""Wanted of overall accuracy where nobody says otherwise: about 4 percent to either side, for 400 points and what rare
classes need on top. 0.01, as in the example of Olofsson et al. 2014, would take four times as many, which is days of
looking at imagery."""

EXPECTED_USERS_ACCURACY = 0.8
"""Expected of every class before anything is known. If the map is better, the sample tells more than was asked for."""

MIN_PER_CLASS = 50
"""Points on a rare class: the least that Olofsson et al. 2014 recommend (section 4.2), 50 to 100."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Pixels drawn at random within the classes of a map, in random order.

    Attributes:
        row_N: Their rows [N].
        col_N: Their columns [N].
        seed: What the generator was started with.
        digest: Of the map that they were drawn from.
        points_K: How many lie on each class [K].
    """

    row_N: NDArray[np.int64]
    col_N: NDArray[np.int64]
    seed: int
    digest: str
    points_K: NDArray[np.int64]


def plan_sample(
    land_cover: LandCover, points: int | None, min_per_class: int, standard_error: float
) -> NDArray[np.int64]:
    """Says how many points each class gets.

    Args:
        land_cover: The map.
        points: Points in all; None takes as many as give overall accuracy the wanted standard error, in proportion to
            area, and on rare classes more.
        min_per_class: Points on every class that the map holds, or all of its pixels.
        standard_error: Wanted of overall accuracy if `points` is None.

    Returns:
        Points on each class [K]; at most its pixels.

    Raises:
        SampleError: The points are fewer than the classes need, or more than the map has pixels.
    """
    pixels_K = land_cover.pixels_K
    least = int(np.minimum(pixels_K, min_per_class).sum())
    if points is None:
        wanted = sample_size(pixels_K, standard_error, EXPECTED_USERS_ACCURACY)
        # The equation's number is for shares by area. What rare classes need comes on top: were it taken from the
        # others, a map of one wide and many rare classes would miss the standard error by far.
        return np.maximum(allocate(pixels_K, wanted, 0), np.minimum(pixels_K, min_per_class))
    if points < least:
        raise SampleError(
            f"{land_cover.path} holds {np.count_nonzero(pixels_K)} classes, which take {least} points at "
            f"{min_per_class} each, not {points}; ask for more --points or for fewer --min-per-class."
        )
    if points > pixels_K.sum():
        raise SampleError(f"{land_cover.path} has {pixels_K.sum():,} pixels with a class; ask for fewer --points.")
    return allocate(pixels_K, points, min_per_class)


def allocate(pixels_K: NDArray[np.int64], points: int, min_per_class: int) -> NDArray[np.int64]:
    """Divides points among classes: so many on each at least, the rest in proportion to area.

    Olofsson et al. 2014, section 5.1.1: rare classes get a fixed number, and the others share what is left by area.

    Args:
        pixels_K: Pixels of each class [K].
        points: Points in all, from the least that the classes need up to all pixels.
        min_per_class: Points on each class, or all of its pixels if those are fewer.

    Returns:
        Points on each class [K], which sum up to `points`; 0 on a class without pixels.
    """
    points_K = np.minimum(pixels_K, min_per_class)
    assert points_K.sum() <= points <= pixels_K.sum()
    sharing_K = pixels_K > points_K
    while sharing_K.any():
        left = points - int(points_K[~sharing_K].sum())
        share_K = np.where(sharing_K, left * (pixels_K / pixels_K[sharing_K].sum()), np.inf)
        too_few_K = share_K < points_K
        if not too_few_K.any():
            whole_K = np.floor(np.where(sharing_K, share_K, 0)).astype(np.int64)
            order_K = np.argsort(np.where(sharing_K, whole_K - share_K, np.inf), kind="stable")
            whole_K[order_K[: left - int(whole_K.sum())]] += 1  # the largest remainders are rounded up
            return np.where(sharing_K, whole_K, points_K)
        sharing_K &= ~too_few_K  # these have their least, and the others share what remains
    return points_K


def draw_sample(
    land_cover: LandCover,
    points_K: NDArray[np.int64],
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Sample:
    """Draws pixels without replacement, each of a class as likely as the other.

    First the ranks of the pixels within their class are drawn, then the map is gone through window by window and the
    pixels of these ranks are picked: memory holds a window and the sample. The same map, numbers and seed give the same
    sample, whatever the blocks of the file.

    Args:
        land_cover: The map.
        points_K: Points on each class [K], at most its pixels.
        seed: Starts the generator.
        progress: Called with the pixels gone through and the pixels in all.

    Returns:
        The sample, in random order: whoever labels the first points only has labelled a random part.

    Raises:
        SampleError: A part of the map cannot be read, or the map is being changed.
    """
    generator = np.random.default_rng(seed)
    ranks = [
        np.sort(generator.choice(int(pixels), int(points), replace=False, shuffle=False))
        for pixels, points in zip(land_cover.pixels_K, points_K, strict=True)
    ]
    seen_K = np.zeros(len(points_K), np.int64)
    digest = Digest(land_cover)
    rows, cols = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for row, col, label_HW in walk(land_cover, progress):
        digest.add(label_HW)
        here_K = np.bincount(label_HW.ravel(), minlength=len(seen_K))[: len(seen_K)]
        for class_id, (seen, here) in enumerate(zip(seen_K, here_K, strict=True)):
            first, last = np.searchsorted(ranks[class_id], (seen, seen + here))
            if first < last:
                pixel = np.flatnonzero(label_HW == class_id)[ranks[class_id][first:last] - seen]
                down, across = np.divmod(pixel, label_HW.shape[1])
                rows.append(row + down)
                cols.append(col + across)
        seen_K += here_K
    if (seen_K != land_cover.pixels_K).any():
        raise SampleError(
            f"{land_cover.path} was changed while it was read; draw the sample again when it is finished."
        )
    row_N, col_N = np.concatenate(rows), np.concatenate(cols)
    order_N = generator.permutation(len(row_N))
    return Sample(row_N[order_N], col_N[order_N], seed, digest.text, points_K)
