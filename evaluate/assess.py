"""How good a map is and what its classes really cover, by a sample of points. Axes: K classes, N points."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import IGNORE_INDEX, ClassMap
from salakseg.errors import SampleError
from salakseg.evaluate.clustering import is_clustered, nearest_neighbour_ratio
from salakseg.evaluate.design import Design, Differences, compare
from salakseg.evaluate.olofsson import Estimates, estimate
from salakseg.evaluate.points import LABEL, UNLABELLED, Points, check_points_input, naming, read_points
from salakseg.evaluate.strata import LandCover, classes_at, open_land_cover
from salakseg.shell import as_argument

DesignName = Literal["stratified", "simple"]


@dataclass(frozen=True, slots=True, eq=False)
class Assessment:
    """What a sample of points tells of a map.

    Attributes:
        points: File of the points.
        land_cover: The map.
        design: How the points were drawn.
        drawn: What salakseg drew; None if the user says how the points were drawn.
        counts_KK: Labelled points by class of the map and label [K, K], int64.
        estimates: Accuracy and areas; these in hectares, or in pixels if the map does not say where it lies.
        remarks: One sentence each, for the user.
    """

    points: Path
    land_cover: LandCover
    design: DesignName
    drawn: Design | None
    counts_KK: NDArray[np.int64]
    estimates: Estimates
    remarks: tuple[str, ...]

    @property
    def unit(self) -> str:
        """Of the areas."""
        return "px" if self.land_cover.hectares_K is None else "ha"

    @property
    def mapped_K(self) -> NDArray[np.float64]:
        """Area that the map gives each class [K]."""
        land_cover = self.land_cover
        return land_cover.pixels_K.astype(np.float64) if land_cover.hectares_K is None else land_cover.hectares_K

    @property
    def caption(self) -> str:
        """Where the points are from, in a sentence for people."""
        labelled = f"{self.counts_KK.sum():,} labelled points"
        if self.drawn is not None:
            return f"{labelled} of a stratified random sample that salakseg drew (seed {self.drawn.seed})"
        return f"{labelled}, a {self.design} random sample by --design"


def assess(
    points: Path,
    land_cover: Path,
    *,
    class_mapping: ClassMap | None = None,
    label_column: str = LABEL,
    design: DesignName | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Assessment:
    """Compares labelled points with a map.

    Points that salakseg drew are recognised. Others are taken for the sample that the user says they are, unless they
    lie in clusters: the pixels of a few labelled patches are no sample of a map, and a 95 % interval that is computed
    from them holds for nothing.

    A point stands for a pixel. Where pixels of a class differ in area, as in degrees, that must have nothing to do with
    whether they are right; over a farm they differ by less than 0.1 %.

    Args:
        points: File of points with labels, see `read_points`.
        land_cover: The map.
        class_mapping: Its classes, where it does not tell them.
        label_column: The column with the labels.
        design: How points were drawn that salakseg did not draw, or that were changed since: "stratified" at random
            within each class of this map, or "simple", at random over all of it, which is then poststratified by the
            classes of the map: the same formulas given how many points fell on each.
        progress: Called with the pixels gone through and the pixels in all.

    Returns:
        Estimates with their standard errors.

    Raises:
        SampleError: A file is missing or unreadable, a label is no class, the points are of another map, beyond it, no
            probability sample, or too few on a class.
        RasterError: The map cannot be read.
    """
    check_points_input(points)
    land = open_land_cover(land_cover, class_mapping)
    found = read_points(points, land, label_column)
    row_N, col_N = land.pixels_at(found.coordinates_N2)
    class_N, digest = classes_at(land, row_N, col_N, progress)
    drawn, changes = _drawn(found, land, digest, np.where(row_N < 0, -1, row_N * land.width + col_N), design)
    _refuse_nowhere(found, land, class_N)
    labelled_N = found.label_N != UNLABELLED
    row_N, col_N, class_N, label_N = (array[labelled_N] for array in (row_N, col_N, class_N, found.label_N))
    if drawn is None:
        _refuse_clusters(found, land, row_N, col_N, class_N)
    counts_KK = _count(class_N, label_N, len(land.class_map))
    how = "stratified" if drawn is not None or design is None else design
    _refuse_too_few(found, land, counts_KK, drawn, how)
    mapped_K = land.pixels_K if land.hectares_K is None else land.hectares_K
    return Assessment(
        points=points,
        land_cover=land,
        design=how,
        drawn=drawn,
        counts_KK=counts_KK,
        # Whether points of others were drawn without replacement is not known: no finite population correction
        estimates=estimate(counts_KK, mapped_K, None if drawn is None else land.pixels_K),
        remarks=_remarks(found, land, drawn, changes, how, counts_KK),
    )


def _drawn(
    points: Points, land: LandCover, digest: str, pixel_N: NDArray[np.int64], design: DesignName | None
) -> tuple[Design | None, Differences | None]:
    """The design that the points still are a sample by, and in what they differ from it.

    Raises:
        SampleError: They are of another map, or no such sample and the user does not say what they are.
    """
    wanted = points.design
    if wanted is None:
        if design is None:
            raise SampleError(
                f"{points.path} was not drawn by `salakseg sample` (or is a copy that lost how), and a 95 % interval "
                "needs a probability sample; draw one and label it, say by --design stratified or simple how these "
                "points were drawn at random, or judge labelled patches with `salakseg report`."
            )
        return None, None
    if wanted.digest != digest:
        raise SampleError(
            f"{points.path} was drawn from another map ({wanted.map_name}, {wanted.width} x {wanted.height} pixels), "
            f"not from {land.path} as it is, and its strata are that map's classes; name that map, or draw a sample "
            "of this one with `salakseg sample`."
        )
    if wanted.class_names != land.class_map.names:
        raise SampleError(
            f"{points.path} was drawn with the classes {', '.join(wanted.class_names)}; "
            "give the same --class-mapping as then."
        )
    changes = compare(wanted, points.numbers, pixel_N)
    if not (changes.moved or changes.added):
        if design == "simple":
            raise SampleError(f"{points.path} was drawn as a stratified sample; leave out --design simple.")
        return wanted, changes
    if design is None:
        what = []
        if changes.moved:
            what.append(f"{naming([str(number) for number in changes.moved])} moved to other pixels")
        if changes.added:
            what.append(f"{changes.added} point{'s' * (changes.added > 1)} added")
        raise SampleError(
            f"{points.path} was changed since it was drawn ({', '.join(what)}) and is no probability sample any more, "
            "which a 95 % interval needs; put the points back and delete what was added, or draw anew with "
            "`salakseg sample`."
        )
    return None, None


def _refuse_nowhere(points: Points, land: LandCover, class_N: NDArray[np.uint8]) -> None:
    nowhere = [points.names[index] for index in np.flatnonzero(class_N == IGNORE_INDEX)]
    if nowhere:
        raise SampleError(
            f"{points.path}: {naming(nowhere)} of {len(class_N)} lie beyond {land.path} or where it knows no class; "
            "see that the points are of this map, and delete them if what lies there is not asked for."
        )


def _refuse_clusters(
    points: Points, land: LandCover, row_N: NDArray[np.int64], col_N: NDArray[np.int64], class_N: NDArray[np.uint8]
) -> None:
    ratios: list[tuple[float, int]] = []
    for class_id in np.unique(class_N):
        on_N = class_N == class_id
        ratio = nearest_neighbour_ratio(row_N[on_N], col_N[on_N], int(land.pixels_K[class_id]))
        if is_clustered(ratio, int(on_N.sum())):
            _refuse_cluster(points, land, f"on {land.class_map.names[class_id]}", ratio)
        if not np.isnan(ratio):
            ratios.append((ratio, int(on_N.sum())))
    if ratios:  # a few points on each of many classes tell something together only
        ratio = float(np.average([ratio for ratio, _ in ratios], weights=[points for _, points in ratios]))
        if is_clustered(ratio, sum(points for _, points in ratios)):
            _refuse_cluster(points, land, "on all classes together", ratio)


def _refuse_cluster(points: Points, land: LandCover, where: str, ratio: float) -> None:
    raise SampleError(
        f"{points.path}: the points {where} lie in clusters ({ratio:.2f} times as far from each other as random points "
        "would), as pixels of a few patches do, and a 95 % interval needs a probability sample of the whole map; draw "
        f"one with `salakseg sample {as_argument(land.path)}`, or judge labelled patches with `salakseg report`, which "
        "resamples photos."
    )


def _refuse_too_few(
    points: Points, land: LandCover, counts_KK: NDArray[np.int64], drawn: Design | None, how: DesignName
) -> None:
    points_K = counts_KK.sum(axis=1)
    # A class of one pixel, which was drawn, is known
    least_K = np.where(land.pixels_K > 0, 2, 0) if drawn is None else np.minimum(land.pixels_K, 2)
    short = np.flatnonzero(points_K < least_K)
    if not len(short):
        return
    class_id = int(short[0])
    count = int(points_K[class_id])
    share = land.pixels_K[class_id] / land.pixels_K.sum()
    remedy = {
        "stratified": "label more of the points, or draw a sample of this map with `salakseg sample`",
        "simple": "draw a stratified sample with `salakseg sample`, which sees to rare classes",
    }[how]
    raise SampleError(
        f"{points.path} has {count or 'no'} labelled point{'s' * (count != 1)} where the map "
        f"shows {land.class_map.names[class_id]} ({100 * share:.2g} % of it), and two are the least that an interval "
        f"needs; {remedy}."
    )


def _count(class_N: NDArray[np.uint8], label_N: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    cells_N = class_N.astype(np.int64) * classes + label_N
    return np.bincount(cells_N, minlength=classes**2).reshape(classes, classes)


def _remarks(
    points: Points,
    land: LandCover,
    drawn: Design | None,
    changes: Differences | None,
    how: DesignName,
    counts_KK: NDArray[np.int64],
) -> tuple[str, ...]:
    remarks = []
    deleted = 0 if changes is None else len(changes.deleted)
    missing = int((points.label_N == UNLABELLED).sum()) + deleted
    if missing:
        remarks.append(
            f"{missing:,} of {len(points.label_N) + deleted:,} points have no label"
            f"{f' ({deleted:,} of them deleted)' if deleted else ''}. If chance decided which, the figures stand; if "
            "the hard ones were left out, they are too good, and nothing here can tell."
        )
    if drawn is None:
        remarks.append(
            f"That the points are a {how} random sample is what --design says; only that they do not lie in clusters "
            "was checked."
        )
    if how == "simple":
        remarks.append("A simple random sample is poststratified by the classes of the map: the same formulas.")
    points_K = counts_KK.sum(axis=1)
    certain_K = (points_K > 0) & (counts_KK.max(axis=1) == points_K) & (points_K < land.pixels_K)
    if certain_K.any():
        fewest = int(points_K[certain_K].min())
        remarks.append(
            f"Where all points on a mapped class have one label, the formulas give ± 0, which is not certainty: with "
            f"{fewest} points up to {min(100, 300 / fewest):.0f} % of such a class may still be something else."
        )
    return tuple(remarks)
