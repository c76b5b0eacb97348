"""LabelMe files as labels of photos."""

import base64
import binascii
import io
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from PIL import Image

from salakseg.classes import ClassMap
from salakseg.errors import DataError
from salakseg.prepare.labelling.frame import Frame, check_stated_size
from salakseg.prepare.labelling.json_files import read_json, stem_of
from salakseg.prepare.labelling.label_facts import LabelFacts
from salakseg.prepare.labelling.label_lookup import ClassLookup, refuse_unknown
from salakseg.prepare.labelling.label_options import LabelOptions
from salakseg.prepare.labelling.photo_labels import Drawn, PictureLabels, paint

_CIRCLE_STRAY_PX = 0.02
"""How far the polygon that stands for a circle may lie within it."""

_LARGEST_CIRCLE_PX = 1e6
"""Radius; a larger one is damaged, and would need more corners than there is memory for."""

_WITHOUT_AREA = ("point", "points", "line", "linestrip")


def open_labelme(
    path: Path, frame: Frame, source: Path, class_map: ClassMap, options: LabelOptions
) -> tuple[PictureLabels, LabelFacts] | None:
    """Opens the shapes of one photo as labels; later ones lie on top.

    Polygons, rectangles, circles and masks are understood. Coordinates are pixels from the upper left corner of the
    picture: (0, 0) to (1, 1) is its first pixel, whose centre is at (0.5, 0.5).

    Args:
        path: The LabelMe file.
        frame: The photo's pixels.
        source: The photo.
        class_map: The classes.
        options: How labels are to be read.

    Returns:
        The labels and what was found; None if the file has no shape.

    Raises:
        DataError: The file is damaged, names what is no class, or is of another picture.
    """
    content = read_json(path)
    shapes = content["shapes"]
    if not isinstance(shapes, list) or not all(isinstance(shape, Mapping) for shape in shapes):
        raise DataError(f"{path} holds no list of shapes; save it again in LabelMe.")
    named = content.get("imagePath")
    if isinstance(named, str) and named and stem_of(named) != stem_of(source.name):
        raise DataError(
            f"{path} is of the picture {named!r}, not of {source.name}; if that picture was renamed, mend imagePath in "
            "the file, else give the file its picture's name."
        )
    check_stated_size(path, "its picture", content, ("imageHeight", "imageWidth"), frame, source)
    lookup = ClassLookup(class_map)
    found = [lookup.find(shape.get("label")) for shape in shapes]
    unknown = Counter(str(s.get("label")) for s, class_id in zip(shapes, found, strict=True) if class_id is None)
    refuse_unknown(path, "a label", unknown, lookup)
    facts = LabelFacts(path, "LabelMe files")
    drawn: list[Drawn] = []
    for number, (shape, class_id) in enumerate(zip(shapes, found, strict=True), start=1):
        assert class_id is not None
        try:
            one = _drawn(shape, class_id)
        except (KeyError, TypeError, ValueError, OSError, binascii.Error, shapely.errors.ShapelyError) as error:
            raise DataError(f"{path}: shape {number} cannot be read ({error}); save it again in LabelMe.") from error
        if one is None:
            facts.left_out[f"of type {_kind(shape)!r}"] += 1
        else:
            drawn.append(one)
    label_HW = paint(drawn, frame, lookup, options.priority, facts, options.all_touched)
    return None if label_HW is None else (PictureLabels(label_HW, frame), facts)


def _kind(shape: Mapping[str, Any]) -> str:
    return str(shape.get("shape_type") or "polygon")  # the first LabelMe files have polygons alone and do not say so


def _drawn(shape: Mapping[str, Any], class_id: int) -> Drawn | None:
    """A shape to be painted; None for a kind that has no area."""
    kind = _kind(shape)
    if kind not in ("polygon", "rectangle", "circle", "mask"):
        return None
    points = np.asarray(shape["points"], np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError("its points are no pairs of numbers")
    if kind == "polygon":
        if len(points) < 3:
            raise ValueError("a polygon needs three points")
        return Drawn(class_id, (shapely.Polygon(points),))
    if len(points) < 2:
        raise ValueError(f"a {kind} needs two points")
    (x, y), (other_x, other_y) = points[:2].tolist()
    if kind == "rectangle":  # two corners, or all four as newer files have them
        left, top = points.min(axis=0).tolist()
        right, bottom = points.max(axis=0).tolist()
        return Drawn(class_id, (shapely.box(left, top, right, bottom),))
    if kind == "circle":  # its centre, and a point on it
        return Drawn(class_id, (_circle(x, y, math.hypot(other_x - x, other_y - y)),))
    with Image.open(io.BytesIO(base64.b64decode(shape["mask"], validate=True))) as picture:
        return Drawn(class_id, mask_HW=np.asarray(picture.convert("L")) > 0, top=round(y), left=round(x))


def _circle(x: float, y: float, radius: float) -> Any:  # noqa: ANN401
    """A polygon within a circle, so fine that hardly a pixel tells them apart."""
    if radius <= 0:
        raise ValueError("a circle has no radius")
    if radius > _LARGEST_CIRCLE_PX:
        raise ValueError(f"a circle has a radius of {radius:.3g} pixels")
    corners = 4 * max(8, math.ceil(math.pi / 4 / math.acos(max(0.0, 1 - _CIRCLE_STRAY_PX / max(radius, 1.0)))))
    angle = np.arange(corners) * (2 * math.pi / corners)
    return shapely.Polygon(np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1))
