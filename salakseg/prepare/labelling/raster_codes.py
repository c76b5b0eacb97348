"""What the values of a label raster mean: class indices, a palette, or class colours."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.windows import Window

from salakseg.classes import IGNORE_INDEX, ClassMap, Color
from salakseg.data.masks import is_filler
from salakseg.errors import DataError
from salakseg.mapping.validity import valid_mask
from salakseg.prepare.labelling.label_facts import LabelFacts, Stranger
from salakseg.prepare.labelling.label_lookup import IGNORED, UNLABELLED

_PART = 1024
"""Side of the windows in which a file is gone through, pixels."""

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Decoder:
    """From stored values to labels.

    Attributes:
        bands: The bands that hold values, counted from one: one, or red, green and blue.
        lut: Label of each code, uint8: [256] for indices and palettes, [2**24] for packed colours.
    """

    bands: tuple[int, ...]
    lut: NDArray[np.uint8]

    def read(self, dataset: Any, path: Path, window: Window) -> NDArray[np.uint8]:  # noqa: ANN401
        """Labels of a window within the raster, uint8 [H, W]: classes, `IGNORED`, `UNLABELLED` where there is no data.

        Raises:
            DataError: The file cannot be read there.
        """
        values_CHW, valid_HW = read_values(dataset, path, window, self.bands)
        codes_HW = _packed(values_CHW) if len(self.bands) == 3 else values_CHW[0]
        if codes_HW.dtype.kind == "f":
            codes_HW = np.where(valid_HW, codes_HW, 0)
        label_HW = self.lut[codes_HW.astype(np.int64, copy=False) if codes_HW.dtype != np.uint8 else codes_HW]
        label_HW[~valid_HW] = UNLABELLED
        return label_HW


def read_values(
    dataset: Any,  # noqa: ANN401
    path: Path,
    window: Window,
    bands: tuple[int, ...],
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values [C, H, W] and where they count, [H, W].

    Raises:
        DataError: The file cannot be read there.
    """
    try:
        values_CHW = dataset.read(list(bands), window=window)
        valid_HW = valid_mask(dataset, window)
    except RasterioError as error:
        raise DataError(
            f"{path} cannot be read at row {window.row_off}, column {window.col_off}; the file is damaged or "
            "incomplete: copy or export it again."
        ) from error
    if values_CHW.dtype.kind == "f":
        valid_HW &= np.isfinite(values_CHW).all(axis=0)
    if values_CHW.dtype.kind != "u" or values_CHW.dtype.itemsize > 1:
        values_CHW = np.where(valid_HW, values_CHW, 0)  # nodata may be any number
    return values_CHW, valid_HW


def survey(dataset: Any, path: Path, class_map: ClassMap, facts: LabelFacts) -> Decoder:  # noqa: ANN401
    """Goes through the whole raster once and finds out what its values mean.

    The rules are those of `salakseg.data.masks`: a palette counts by its colours if any of them is a class colour, else
    by its indices; three equal bands are indices unless the greys are class colours.

    Args:
        dataset: The open `rasterio` dataset.
        path: Its file, for messages.
        class_map: The classes.
        facts: Gets the colours in no class, with places.

    Raises:
        DataError: A value is no class, or the bands are no labels.
    """
    bands = tuple(b for b, meaning in enumerate(dataset.colorinterp, start=1) if meaning != ColorInterp.alpha)
    dtypes = {dataset.dtypes[band - 1] for band in bands}
    if len(bands) == 1 and not any(dtype.startswith("complex") for dtype in dtypes):
        if ColorInterp.palette in dataset.colorinterp and dtypes == {"uint8"}:
            return _survey_palette(dataset, path, class_map, facts, bands)
        return _survey_indices(dataset, path, class_map, facts, bands)
    if len(bands) == 3 and dtypes == {"uint8"}:
        return _survey_colors(dataset, path, class_map, facts, bands)
    raise DataError(
        f"{path} has {len(bands)} band{'s' * (len(bands) != 1)} of {', '.join(sorted(dtypes))}; labels are one band of "
        "class indices, or red, green and blue of 8 bits in the class colours."
    )


def _windows(dataset: Any) -> Iterator[Window]:  # noqa: ANN401
    for row in range(0, dataset.height, _PART):
        for col in range(0, dataset.width, _PART):
            yield Window(col, row, min(_PART, dataset.width - col), min(_PART, dataset.height - row))


def _indices(dataset: Any, path: Path, bands: tuple[int, ...]) -> Iterator[tuple[float, int, Place]]:  # noqa: ANN401
    """Each value of a band, window by window: how often it occurs there, and where in the file first."""
    first: dict[float, Place] = {}
    for window in _windows(dataset):
        values_CHW, valid_HW = read_values(dataset, path, window, bands)
        values_N = values_CHW[0][valid_HW]
        if values_N.dtype == np.uint8:
            counts = np.bincount(values_N, minlength=256)
            found, counts = np.flatnonzero(counts), counts[counts > 0]
        else:
            found, counts = np.unique(values_N, return_counts=True)
        for value, count in zip(found.tolist(), counts.tolist(), strict=True):
            if value not in first:
                row, col = np.argwhere((values_CHW[0] == value) & valid_HW)[0]
                first[value] = int(window.row_off + row), int(window.col_off + col)
            yield float(value), int(count), first[value]


def _survey_indices(
    dataset: Any,  # noqa: ANN401
    path: Path,
    class_map: ClassMap,
    facts: LabelFacts,
    bands: tuple[int, ...],
) -> Decoder:
    for value, _, (row, col) in _indices(dataset, path, bands):
        _check_index(value, class_map, path, row, col)
    _note_nodata(dataset, class_map, facts, _index_lut(class_map))
    return Decoder(bands, _index_lut(class_map))


def _survey_palette(
    dataset: Any,  # noqa: ANN401
    path: Path,
    class_map: ClassMap,
    facts: LabelFacts,
    bands: tuple[int, ...],
) -> Decoder:
    palette = np.zeros((256, 3), np.uint8)
    for index, entry in dataset.colormap(bands[0]).items():
        palette[index] = entry[:3]
    pixels: dict[int, int] = {}
    places: dict[int, Place] = {}
    for value, count, place in _indices(dataset, path, bands):
        pixels[int(value)] = pixels.get(int(value), 0) + count
        places.setdefault(int(value), place)
    classes, codes = _codes(class_map.colors), _codes(palette)
    grey_ramp = bool((palette[: len(class_map)] == np.arange(len(class_map))[:, None]).all())
    telling = np.isin(codes, classes[classes != 0]).any()  # black alone says nothing: every palette has it
    if grey_ramp or not (telling or np.isin(codes[list(pixels)], classes).all()):
        for value, (row, col) in places.items():
            _check_index(value, class_map, path, row, col)
        _note_nodata(dataset, class_map, facts, _index_lut(class_map))
        return Decoder(bands, _index_lut(class_map))
    lut = np.full(256, IGNORED, np.uint8)
    for class_id, code in enumerate(classes):
        lut[codes == code] = class_id
    if is_filler(codes, classes):
        lut[IGNORE_INDEX] = IGNORED
    for value, count in pixels.items():
        if lut[value] == IGNORED and codes[value] not in classes:
            _note_stranger(facts, int(codes[value]), count, places[value])
    _note_nodata(dataset, class_map, facts, lut)
    return Decoder(bands, lut)


def _survey_colors(
    dataset: Any,  # noqa: ANN401
    path: Path,
    class_map: ClassMap,
    facts: LabelFacts,
    bands: tuple[int, ...],
) -> Decoder:
    lut = np.full(2**24, IGNORED, np.uint8)
    lut[_codes(class_map.colors)] = np.arange(len(class_map))
    grey = True
    greys: dict[int, Place] = {}
    strangers: dict[int, tuple[int, Place]] = {}
    for window in _windows(dataset):
        values_CHW, valid_HW = read_values(dataset, path, window, bands)
        code_HW = _packed(values_CHW)
        if grey:
            grey = bool(((values_CHW[0] == values_CHW[1]) & (values_CHW[0] == values_CHW[2]) | ~valid_HW).all())
            for value, place in _first_places(values_CHW[0], valid_HW, window):
                greys.setdefault(value, place[1])
        for code, (count, at) in _first_places(code_HW, valid_HW & (lut[code_HW] == IGNORED), window):
            before, first = strangers.get(code, (0, at))
            strangers[code] = before + count, first
    as_colors = all(lut[value * 0x010101] != IGNORED for value in greys)
    if grey and not as_colors and set(greys) != {0}:
        for value, (row, col) in greys.items():
            _check_index(value, class_map, path, row, col)
        return Decoder(bands[:1], _index_lut(class_map))
    for code, (count, at) in strangers.items():
        _note_stranger(facts, code, count, at)
    _note_nodata(dataset, class_map, facts, lut[np.arange(256) * 0x010101])
    return Decoder(bands, lut)


def _first_places(
    values_HW: NDArray[Any], where_HW: NDArray[np.bool_], window: Window
) -> Iterator[tuple[int, tuple[int, Place]]]:
    """Each value where it counts: how often it occurs, and where first."""
    if not where_HW.any():
        return
    rows, cols = np.nonzero(where_HW)
    values, first, counts = np.unique(values_HW[where_HW], return_index=True, return_counts=True)
    for value, at, count in zip(values.tolist(), first, counts, strict=True):
        yield int(value), (int(count), (int(window.row_off + rows[at]), int(window.col_off + cols[at])))


def _check_index(value: float, class_map: ClassMap, path: Path, row: int, col: int) -> None:
    if value == IGNORE_INDEX or (value == int(value) and 0 <= value < len(class_map)):
        return
    raise DataError(
        f"{path} holds the index {value:g} (row {row}, column {col}), but the class map has the ids 0 to "
        f"{len(class_map) - 1} (and {IGNORE_INDEX} for ignore); mend the labels, set their nodata value, or name the "
        "right --class-mapping."
    )


def _index_lut(class_map: ClassMap) -> NDArray[np.uint8]:
    lut = np.full(256, IGNORED, np.uint8)
    lut[: len(class_map)] = np.arange(len(class_map))
    return lut


def _note_nodata(
    dataset: Any,  # noqa: ANN401
    class_map: ClassMap,
    facts: LabelFacts,
    lut: NDArray[np.uint8],
) -> None:
    nodata = dataset.nodata
    if nodata is not None and 0 <= nodata < len(lut) and nodata == int(nodata) and lut[int(nodata)] < len(class_map):
        name = class_map.names[lut[int(nodata)]]
        facts.notes.append(
            f"A label raster marks {nodata:g} as no data, so that {name!r} is nowhere in it and these pixels are "
            "unlabelled; unset its nodata value if they are labelled."
        )


def _note_stranger(facts: LabelFacts, code: int, pixels: int, place: Place) -> None:
    color: Color = (code >> 16, code >> 8 & 255, code & 255)
    facts.strangers[color] = Stranger(pixels, f" (row {place[0]}, column {place[1]})")


def _packed(rgb_CHW: NDArray[np.uint8]) -> NDArray[np.int32]:
    """One integer a colour: red, green and blue in its three lowest bytes."""
    code_HW: NDArray[np.int32] = rgb_CHW[0].astype(np.int32)
    for band_HW in rgb_CHW[1:]:
        code_HW <<= 8
        code_HW |= band_HW
    return code_HW


def _codes(colors_N3: NDArray[np.uint8]) -> NDArray[np.int32]:
    return _packed(colors_N3.T)
