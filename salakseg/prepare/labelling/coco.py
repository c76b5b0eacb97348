"""COCO files as labels of photos: polygons, run lengths, and panoptic pictures of segments."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from salakseg.classes import ClassMap
from salakseg.data.masks import read_image
from salakseg.errors import DataError
from salakseg.prepare.labelling.frame import Frame, check_size, check_stated_size
from salakseg.prepare.labelling.json_files import file_parts, read_json, stem_of
from salakseg.prepare.labelling.label_facts import LabelFacts
from salakseg.prepare.labelling.label_lookup import ClassLookup, refuse_unknown
from salakseg.prepare.labelling.label_options import LabelOptions
from salakseg.prepare.labelling.photo_labels import Drawn, PictureLabels, paint
from salakseg.prepare.labelling.rle import decode_rle


@dataclass(slots=True)
class CocoFile:
    """A COCO file, so that a photo finds its own.

    Attributes:
        classes: Class of each category id that is used.
        images: Entries by file name: the parts of the name that the file gives, and the entry.
        stems: The same by the name's stem.
        annotations: Annotations by image id, in their order.
        strays: How many are of an image that the file does not list.
    """

    classes: dict[str, int]
    images: dict[str, list[tuple[tuple[str, ...], Mapping[str, Any]]]] = field(default_factory=dict)
    stems: dict[str, list[tuple[tuple[str, ...], Mapping[str, Any]]]] = field(default_factory=dict)
    annotations: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    strays: int = 0


def open_coco(
    path: Path, frame: Frame, source: Path, class_map: ClassMap, options: LabelOptions
) -> tuple[PictureLabels, LabelFacts] | None:
    """Opens the annotations of one photo as labels; later ones lie on top, a crowd (`iscrowd`) counts as its class.

    Categories are classes by name. The photo is found by its file name, and where several folders have one of that name
    by as much of its path as tells them apart.

    Args:
        path: The COCO file.
        frame: The photo's pixels.
        source: The photo.
        class_map: The classes.
        options: How labels are to be read.

    Returns:
        The labels and what was found; None if the file has no annotation for the photo.

    Raises:
        DataError: The file is damaged, has a category that is no class, or is of another picture.
    """
    coco, record = _read_now(path, class_map), find_entry(path, source, class_map)
    annotations = [] if record is None else coco.annotations.get(_id(record.get("id")), [])
    if record is None or not annotations:
        return None
    check_stated_size(path, f"the entry of {record['file_name']!r}", record, ("height", "width"), frame, source)
    lookup = ClassLookup(class_map)
    facts = LabelFacts(path, "COCO annotations", of=source)
    if coco.strays:
        facts.notes.append(f"{path}: {coco.strays:,} annotations left out, of images that it does not list.")
    drawn: list[Drawn] = []
    for annotation in annotations:
        where = f"{path}, annotation {annotation.get('id')} of {record['file_name']!r}"
        try:
            if "segments_info" in annotation:
                drawn += _segments(path, annotation, coco.classes, frame, source)
            else:
                drawn += _shape(annotation, coco.classes, frame, facts)
        except (KeyError, TypeError, ValueError, OverflowError, shapely.errors.ShapelyError) as error:
            raise DataError(f"{where} cannot be read ({error}); export the labels again.") from error
    label_HW = paint(drawn, frame, lookup, options.priority, facts, options.all_touched)
    return None if label_HW is None else (PictureLabels(label_HW, frame), facts)


def find_entry(path: Path, source: Path, class_map: ClassMap) -> Mapping[str, Any] | None:
    """The entry of a photo among the images of a file, the same object while the file stays the same.

    Returns:
        The entry; None if the file has none for the photo.

    Raises:
        DataError: As `open_coco`.
    """
    return _find_image(path, _read_now(path, class_map), source)


def _read_now(path: Path, class_map: ClassMap) -> CocoFile:
    status = path.stat()
    return _read(path, class_map, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=2)
def _read(path: Path, class_map: ClassMap, *_: int) -> CocoFile:
    """Reads a file; kept for the next photo while the file stays the same."""
    content = read_json(path)
    coco = CocoFile(_classes(path, content, ClassLookup(class_map)))
    try:
        for record in content["images"]:
            parts = file_parts(record["file_name"])
            coco.images.setdefault(parts[-1], []).append((parts, record))
            coco.stems.setdefault(stem_of(parts[-1]), []).append((parts, record))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{path} has an image without file_name; export the labels again.") from error
    for annotation in content["annotations"]:
        coco.annotations.setdefault(_id(annotation.get("image_id")), []).append(annotation)
    coco.strays = sum(map(len, coco.annotations.values())) - sum(
        len(coco.annotations.get(key, ())) for key in {_id(record.get("id")) for record in content["images"]}
    )
    return coco


def _id(value: object) -> str:
    """An id for comparison: tools that go through tables write 7.0 or "7" for 7."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _classes(path: Path, content: Mapping[str, Any], lookup: ClassLookup) -> dict[str, int]:
    """The class of each category that is used anywhere in the file."""
    try:
        names = {_id(category["id"]): category["name"] for category in content.get("categories", [])}
        used: Counter[str] = Counter()
        for annotation in content["annotations"]:
            for part in annotation.get("segments_info", [annotation]):
                used[_id(part["category_id"])] += 1
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} has an annotation or category without id or name; export the labels again.") from error
    found = {category: lookup.find(names.get(category)) for category in used}
    strangers = [category for category in used if found[category] is None]
    unknown = {str(names.get(category, f"id {category}")): used[category] for category in strangers}
    refuse_unknown(path, "a category", unknown, lookup)
    return {category: class_id for category, class_id in found.items() if class_id is not None}


def _find_image(path: Path, coco: CocoFile, source: Path) -> Mapping[str, Any] | None:
    wanted = file_parts(str(source.absolute()))
    # By the stem alone where the photos were converted after the export.
    found = coco.images.get(wanted[-1]) or coco.stems.get(stem_of(wanted[-1]), [])
    if len(found) > 1:
        alike = [_common_end(parts[:-1], wanted[:-1]) for parts, _ in found]
        found = [item for item, length in zip(found, alike, strict=True) if length == max(alike)]
    if len(found) > 1:
        raise DataError(
            f"{path} has {len(found)} images called {found[0][1]['file_name']!r}, and the path does not tell which is "
            f"{source}; give the photos different names."
        )
    return found[0][1] if found else None


def _common_end(one: Sequence[str], other: Sequence[str]) -> int:
    length = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        length += 1
    return length


def _shape(
    annotation: Mapping[str, Any], classes: Mapping[str, int], frame: Frame, facts: LabelFacts
) -> Iterator[Drawn]:
    class_id = classes[_id(annotation["category_id"])]
    segmentation = annotation.get("segmentation")
    if not segmentation:
        facts.left_out["without an outline (a box or a point alone)"] += 1
        return
    if isinstance(segmentation, Mapping):
        height, width = segmentation["size"]
        if (height, width) != (frame.height, frame.width):
            raise ValueError(f"its mask is {height} x {width}, the photo {frame.height} x {frame.width}")
        yield Drawn(class_id, mask_HW=decode_rle(segmentation["counts"], height, width))
        return
    polygons = tuple(_ring(numbers) for numbers in segmentation if len(numbers) >= 6)
    if polygons:
        yield Drawn(class_id, polygons)
    else:
        facts.left_out["with fewer than three corners"] += 1


def _ring(numbers: Sequence[float]) -> Any:  # noqa: ANN401
    if len(numbers) % 2:
        raise ValueError("a polygon has an odd number of coordinates")
    points: NDArray[np.float64] = np.asarray(numbers, np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise ValueError("a polygon has a coordinate that is no number")
    return shapely.Polygon(points)


def _segments(
    path: Path, annotation: Mapping[str, Any], classes: Mapping[str, int], frame: Frame, source: Path
) -> Iterator[Drawn]:
    """The segments of a panoptic picture, whose colours are their ids: red + 256 green + 65536 blue."""
    name = str(annotation["file_name"])
    places = [path.with_suffix("") / name, path.parent / name]
    picture = next((place for place in places if place.is_file()), None)
    if picture is None:
        raise DataError(f"{path} needs the picture of segments {name}, which is not at {places[0]}; put it there.")
    rgb_HWC = read_image(picture).astype(np.int64)
    check_size(picture, "the picture of segments", (rgb_HWC.shape[0], rgb_HWC.shape[1]), frame, source)
    id_HW = rgb_HWC[..., 0] + 256 * rgb_HWC[..., 1] + 65536 * rgb_HWC[..., 2]
    for segment in annotation["segments_info"]:
        yield Drawn(classes[_id(segment["category_id"])], mask_HW=id_HW == int(segment["id"]))
