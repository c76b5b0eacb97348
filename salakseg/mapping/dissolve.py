"""Polygons of a raster of labels that is read chunk by chunk, without a seam where chunks meet.

Each chunk becomes a coverage: pieces, one for each connected region (4 neighbours), that fill its rectangle and share
their vertices. Simplifying moves no vertex on the rectangle, so the pieces of neighbouring chunks match, and pieces of
one class that share a stretch of border are dissolved. All coordinates are (column, row) of pixel corners and whole
numbers to the last, which makes every comparison here exact. Axes: H rows from the top, W columns, N vertices.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from salakseg.classes import IGNORE_INDEX

OUTSIDE = 256
"""The label of what lies beyond the raster, unlike all others."""

ReadLabels = Callable[[int, int, int, int], NDArray[np.uint8]]
"""Reads the window (first row, first column, rows, columns), which lies within the raster."""

Polygons = NDArray[np.object_]
"""An array of `shapely` polygons."""


def count_chunks(height: int, width: int, chunk: int) -> int:
    """Number of chunks in a raster, the smaller ones on its right and lower edge included."""
    return -(-height // chunk) * -(-width // chunk)


def polygonize(
    read: ReadLabels, height: int, width: int, *, chunk: int, tolerance_px: float
) -> Iterator[tuple[Polygons, NDArray[np.uint8]]]:
    """Turns a raster of labels into polygons, one for each connected region (4 neighbours) that is not 255.

    Memory holds one chunk and the regions that reach into chunks still to come.

    Args:
        read: Reads the labels, uint8.
        height: Rows of the raster.
        width: Columns of the raster.
        chunk: Side of a chunk, pixels.
        tolerance_px: Tolerance of `shapely.coverage_simplify`; 0 keeps every pixel edge.

    Yields:
        Once for each chunk, row after row: the polygons finished since, and their labels. They form a valid coverage
        together with all others; coordinates are (column, row) of pixel corners.
    """
    frontier = _Frontier(height, width, chunk)
    for row in range(0, height, chunk):
        for col in range(0, width, chunk):
            label_HW = _read_with_halo(read, row, col, height, width, chunk)
            piece_HW, class_ids = _connected_pieces(label_HW[1:-1, 1:-1])
            pieces = _coverage(piece_HW, _nodes(label_HW), row, col)
            if tolerance_px > 0:
                pieces = shapely.coverage_simplify(pieces, tolerance_px, simplify_boundary=False)
            on_border = frontier.add(row, col, label_HW, piece_HW, pieces, class_ids)
            inside = ~on_border & (class_ids != IGNORE_INDEX)
            polygons, ids = pieces[inside], class_ids[inside]
            if col + chunk >= width:
                dissolved, dissolved_ids = frontier.end_row(last=row + chunk >= height)
                polygons, ids = np.concatenate([polygons, dissolved]), np.concatenate([ids, dissolved_ids])
            yield polygons, ids


class _Frontier:
    """The regions that touch a border between chunks, until no chunk to come can add to them.

    Args:
        height: Rows of the raster.
        width: Columns of the raster.
        chunk: Side of a chunk, pixels.
    """

    def __init__(self, height: int, width: int, chunk: int) -> None:
        self._chunk = chunk
        # Where a border between chunks cuts straight through a boundary: one byte for each corner on a border.
        self._straight_in_row = np.zeros((-(-height // chunk) + 1, width + 1), np.bool_)
        self._straight_in_col = np.zeros((-(-width // chunk) + 1, height + 1), np.bool_)
        self._regions: list[list[Any]] = []  # their pieces
        self._class_ids = np.empty(0, np.uint8)  # of the regions
        self._joints: list[NDArray[np.int64]] = []  # pairs of regions that are one
        self._above = np.full(width, -1)  # region above the row of chunks, for each column; -1 where none
        self._below = np.full(width, -1)  # region in its last row of pixels
        self._left = np.full(0, -1)  # region left of the chunk

    def add(
        self,
        row: int,
        col: int,
        label_HW: NDArray[np.uint16],
        piece_HW: NDArray[np.int32],
        pieces: Polygons,
        class_ids: NDArray[np.uint8],
    ) -> NDArray[np.bool_]:
        """Takes over the pieces of a chunk that lie on its border; chunks come from left to right.

        Args:
            row: First row of the chunk.
            col: First column of the chunk.
            label_HW: Its labels with one pixel more on all sides.
            piece_HW: Numbers of the pieces, without the margin.
            pieces: The pieces.
            class_ids: Their labels.

        Returns:
            Which pieces lie on the border, nodata among them.
        """
        height, width = piece_HW.shape
        straight_HW = _straight(label_HW)
        self._straight_in_row[row // self._chunk, col : col + width + 1] |= straight_HW[0]
        self._straight_in_col[col // self._chunk, row : row + height + 1] |= straight_HW[:, 0]

        on_border = np.zeros(len(pieces), np.bool_)
        for side in (piece_HW[0], piece_HW[-1], piece_HW[:, 0], piece_HW[:, -1]):
            on_border[side] = True
        kept = np.flatnonzero(on_border & (class_ids != IGNORE_INDEX))
        region_of = np.full(len(pieces), -1)
        region_of[kept] = len(self._regions) + np.arange(len(kept))
        self._regions.extend([piece] for piece in pieces[kept])
        self._class_ids = np.concatenate([self._class_ids, class_ids[kept]])

        self._join(self._above[col : col + width], region_of[piece_HW[0]])
        if col > 0:
            self._join(self._left, region_of[piece_HW[:, 0]])
        self._left = region_of[piece_HW[:, -1]]
        self._below[col : col + width] = region_of[piece_HW[-1]]
        return on_border

    def end_row(self, *, last: bool) -> tuple[Polygons, NDArray[np.uint8]]:
        """Dissolves what was joined, and hands out the regions that do not reach the next row of chunks.

        Args:
            last: There is no next row.

        Returns:
            Finished polygons and their labels.
        """
        joints = np.concatenate([np.empty((0, 2), np.int64), *self._joints])
        shape = (len(self._regions), len(self._regions))
        graph = coo_array((np.ones(len(joints), np.bool_), (joints[:, 0], joints[:, 1])), shape)
        count, merged_of = connected_components(graph, directed=False)
        merged: list[list[Any]] = [[] for _ in range(count)]
        class_ids = np.empty(count, np.uint8)
        class_ids[merged_of] = self._class_ids
        for pieces, number in zip(self._regions, merged_of, strict=True):
            merged[number].extend(pieces)

        open_ = np.zeros(count, np.bool_)
        if not last:
            open_[merged_of[self._below[self._below >= 0]]] = True
        renumbered = np.where(open_, np.cumsum(open_) - 1, -1)
        self._above = np.where(self._below >= 0, np.append(renumbered, -1)[np.append(merged_of, -1)[self._below]], -1)
        self._regions = [merged[number] for number in np.flatnonzero(open_)]
        self._class_ids = class_ids[open_]
        self._joints = []

        finished = np.flatnonzero(~open_)
        polygons = np.empty(len(finished), np.object_)
        for position, number in enumerate(finished):
            parts = merged[number]
            polygons[position] = shapely.coverage_union_all(parts) if len(parts) > 1 else parts[0]
        return _drop_vertices(polygons, self._on_straight_seam), class_ids[finished]

    def _join(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        """Notes which regions on both sides of a border, given pixel by pixel, are one."""
        both = (one >= 0) & (other >= 0)
        pairs = np.stack([one[both], other[both]], axis=1)
        pairs = pairs[self._class_ids[pairs[:, 0]] == self._class_ids[pairs[:, 1]]]
        self._joints.append(np.unique(pairs, axis=0))

    def _on_straight_seam(self, x_N: NDArray[np.int64], y_N: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which corners are vertices only because a border between chunks cuts a boundary there."""
        chunk = self._chunk
        in_row_N: NDArray[np.bool_] = (y_N % chunk == 0) & self._straight_in_row[y_N // chunk, x_N]
        in_col_N: NDArray[np.bool_] = (x_N % chunk == 0) & self._straight_in_col[x_N // chunk, y_N]
        return in_row_N | in_col_N


def _read_with_halo(read: ReadLabels, row: int, col: int, height: int, width: int, chunk: int) -> NDArray[np.uint16]:
    """A chunk's labels with one pixel more on all sides: the neighbours decide which vertices its border needs."""
    rows, cols = min(chunk, height - row), min(chunk, width - col)
    label_HW = np.full((rows + 2, cols + 2), OUTSIDE, np.uint16)
    top, left = max(row - 1, 0), max(col - 1, 0)
    bottom, right = min(row + rows + 1, height), min(col + cols + 1, width)
    inside = (slice(top - row + 1, bottom - row + 1), slice(left - col + 1, right - col + 1))
    label_HW[inside] = read(top, left, bottom - top, right - left)
    return label_HW


def _connected_pieces(label_HW: NDArray[np.uint16]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Numbers the connected regions of equal labels from 0; returns the numbers [H, W] and the regions' labels."""
    piece_HW = np.empty(label_HW.shape, np.int32)
    class_ids: list[int] = []
    for class_id in np.flatnonzero(np.bincount(label_HW.ravel())):
        number_HW, count = ndimage.label(label_HW == class_id)
        np.add(number_HW, len(class_ids) - 1, out=piece_HW, where=number_HW > 0)
        class_ids += [int(class_id)] * count
    return piece_HW, np.array(class_ids, np.uint8)


def _equal_sides(label_HW: NDArray[np.uint16]) -> tuple[NDArray[np.bool_], ...]:
    """For each corner between four pixels: whether the upper, lower, left and right pair are equal, [H-1, W-1]."""
    beside_HW = label_HW[:, :-1] == label_HW[:, 1:]
    below_HW = label_HW[:-1] == label_HW[1:]
    return beside_HW[:-1], beside_HW[1:], below_HW[:, :-1], below_HW[:, 1:]


def _straight(label_HW: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Corners that one straight boundary between two regions passes, and nothing else.

    Both of its regions can do without a vertex there, and no third one is concerned.
    """
    upper, lower, left, right = _equal_sides(label_HW)
    return (upper & lower & ~left & ~right) | (left & right & ~upper & ~lower)


def _nodes(label_HW: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Corners of a chunk at which every region needs a vertex even where its own edge runs straight, [H+1, W+1].

    Within the chunk these are the T-junctions. On its border they are all the places where a boundary, of this chunk or
    of its neighbour, ends.
    """
    upper, lower, left, right = _equal_sides(label_HW)
    node_HW: NDArray[np.bool_] = upper.astype(np.int8) + lower + left + right == 1
    for edge in (0, -1):
        node_HW[edge] |= ~upper[edge] | ~lower[edge]
        node_HW[:, edge] |= ~left[:, edge] | ~right[:, edge]
    return node_HW


def _coverage(piece_HW: NDArray[np.int32], node_HW: NDArray[np.bool_], row: int, col: int) -> Polygons:
    """The pieces of a chunk as polygons in the order of their numbers, with vertices at their bends and all nodes."""
    rings: list[NDArray[np.int64]] = []
    numbers: list[int] = []
    rings_in: list[int] = []
    for polygon, number in shapes(piece_HW, connectivity=4):
        rings.extend(np.array(ring, np.int64) for ring in polygon["coordinates"])
        rings_in.append(len(polygon["coordinates"]))
        numbers.append(int(number))
    corner_N2, ring_starts = _insert_nodes(np.concatenate(rings), np.array([len(ring) for ring in rings]), node_HW)
    polygon_starts = np.concatenate([[0], np.cumsum(rings_in)])
    polygons = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON,
        (corner_N2 + np.array([col, row])).astype(np.float64),
        (ring_starts, polygon_starts),
    )
    in_order = np.empty(len(polygons), np.object_)
    in_order[numbers] = polygons
    return in_order


def _insert_nodes(
    corner_N2: NDArray[np.int64], lengths: NDArray[np.int64], node_HW: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Walks closed rings of horizontal and vertical edges pixel by pixel and adds the nodes that they pass.

    Args:
        corner_N2: Vertices (x, y) of all rings.
        lengths: Number of vertices of each ring.
        node_HW: Where a vertex is needed.

    Returns:
        Vertices, and where each ring starts among them, with the end at last.
    """
    ends = np.cumsum(lengths)
    edge_N2 = np.diff(corner_N2, axis=0, append=corner_N2[-1:])
    edge_N2[ends - 1] = 0  # from the end of a ring to the start of the next
    steps_N = np.maximum(np.abs(edge_N2).sum(axis=1), 1)
    start_N = np.cumsum(steps_N) - steps_N
    vertex = np.repeat(np.arange(len(corner_N2)), steps_N)
    step = np.arange(len(vertex)) - start_N[vertex]
    passed = corner_N2[vertex] + np.sign(edge_N2)[vertex] * step[:, None]
    kept = (step == 0) | node_HW[passed[:, 1], passed[:, 0]]
    kept_before = np.concatenate([[0], np.cumsum(kept)])
    return passed[kept], kept_before[np.append(start_N[ends - lengths], len(vertex))]


def _drop_vertices(
    polygons: Polygons, droppable: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]
) -> Polygons:
    """Drops the droppable vertices at which a ring runs straight.

    The two polygons that meet along a straight boundary both drop them, so nothing opens between them.
    """
    if not len(polygons):
        return polygons
    _, coordinate_N2, (ring_starts, polygon_starts) = shapely.to_ragged_array(polygons)
    corner_N2 = coordinate_N2.astype(np.int64)
    first, last = ring_starts[:-1], ring_starts[1:] - 1
    before, after = np.arange(len(corner_N2)) - 1, np.arange(len(corner_N2)) + 1
    before[first], after[last] = last - 1, first + 1
    (dx0, dy0), (dx1, dy1) = (corner_N2 - corner_N2[before]).T, (corner_N2[after] - corner_N2).T
    kept = (dx0 * dy1 != dx1 * dy0) | ~droppable(corner_N2[:, 0], corner_N2[:, 1])
    kept[last] = False  # the repeated first vertex, which may be dropped; the ring is closed anew
    kept_before = np.concatenate([[0], np.cumsum(kept)])
    starts, stops = kept_before[first], kept_before[last]
    indices = np.flatnonzero(kept)
    closed = np.insert(indices, stops, indices[starts])
    ring_starts = np.append(starts + np.arange(len(starts)), len(closed))
    rings = (ring_starts, polygon_starts)
    straightened: Polygons = shapely.from_ragged_array(shapely.GeometryType.POLYGON, coordinate_N2[closed], rings)
    return straightened
