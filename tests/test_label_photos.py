"""Labels of photos: masks, COCO, LabelMe, and which file is whose."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from helpers import SHARED_DATA
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from label_files import SOURCE, grid_at, opened, photo_grid, whole, write_json, write_raster, write_shapes
from numpy.typing import NDArray
from PIL import Image
from shapely import box

from salakseg.classes import SALAK, ClassMap
from salakseg.data.masks import read_mask
from salakseg.errors import DataError
from salakseg.prepare.grid import Grid
from salakseg.prepare.labelling.labels import LabelOptions, find_label_file, open_labels, summarise, unused_label_files
from salakseg.prepare.labelling.rle import decode_rle

PHOTO = Path("flight 1/DJI_0001.JPG")
GRID = photo_grid(6, 8)


def save(path: Path, values: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


# Masks


def test_a_mask_beside_a_photo(tmp_path: Path) -> None:
    label_HW = np.random.default_rng(0).integers(0, 7, (6, 8)).astype(np.uint8)
    label_HW[0, 0] = 255
    save(tmp_path / "DJI_0001.png", label_HW)
    labels = opened(tmp_path, GRID, PHOTO, fill="background")
    np.testing.assert_array_equal(whole(labels, GRID), label_HW)
    assert labels.read(-1, 7, 2, 2).tolist() == [[255, 255], [label_HW[0, 7], 255]]
    assert open_labels(tmp_path, GRID, Path("DJI_0002.JPG"), SALAK, LabelOptions()) is None


def test_what_a_mask_leaves_transparent_may_be_filled(tmp_path: Path) -> None:
    rgba = np.dstack([SALAK.colors[np.array([[1, 2, 3]])], np.array([[255, 0, 255]])]).astype(np.uint8)
    rgba[0, 2, :3] = 9
    save(tmp_path / "DJI_0001.png", rgba)
    grid = photo_grid(1, 3)
    assert whole(opened(tmp_path, grid, PHOTO), grid).tolist() == [[1, 255, 255]]
    labels = opened(tmp_path, grid, PHOTO, fill="background")
    assert whole(labels, grid).tolist() == [[1, 0, 255]]
    assert "Colour 9 9 9 is in no class: 1 pixel ignored" in "\n".join(summarise([labels.facts]))


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "DJI_0001.png", np.zeros((8, 6), np.uint8))
    with pytest.raises(DataError, match=r"DJI_0001\.png: the mask has 8 x 6 pixels .* has 6 x 8; one .* EXIF orient"):
        opened(tmp_path, GRID, PHOTO)
    save(tmp_path / "DJI_0001.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(DataError, match=r"has 3 x 4 pixels .* label the picture itself, not a smaller"):
        opened(tmp_path, GRID, PHOTO)


def test_a_single_mask_is_of_the_photo_of_its_name(tmp_path: Path) -> None:
    mask = save(tmp_path / "DJI_0001_mask.png", np.ones((6, 8), np.uint8))
    assert (whole(opened(mask, GRID, PHOTO), GRID) == 1).all()
    with pytest.raises(
        DataError, match=r"does not say which picture it labels: for DJI_0002\.JPG name it DJI_0002\.png"
    ):
        opened(mask, GRID, Path("DJI_0002.JPG"))
    with pytest.raises(DataError, match=r"for DJI_000\.JPG name it DJI_000\.png"):
        opened(mask, GRID, Path("DJI_000.JPG"))  # whose name the other one only begins with


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
def test_polygons_in_pixels_are_of_the_photo_of_their_name(tmp_path: Path, suffix: str) -> None:
    drawn = write_shapes(tmp_path / f"DJI_0001{suffix}", [box(0, 0, 8, 6)], crs=None)
    expected = SALAK.names.index("Jalan")
    for path in (drawn, tmp_path):
        assert (whole(opened(path, GRID, PHOTO), GRID) == expected).all()
    with pytest.raises(DataError, match=rf"for DJI_0002\.JPG name it DJI_0002\{suffix}"):
        opened(drawn, GRID, Path("DJI_0002.JPG"))
    with pytest.raises(DataError, match=r"does not say which picture it labels"):
        opened(tmp_path, GRID, PHOTO, reviewed=write_shapes(tmp_path / "area.gpkg", [box(0, 0, 8, 6)], crs=None))


def test_polygons_in_degrees_say_nothing_of_a_photo_without_a_place(tmp_path: Path) -> None:
    farm = box(110.36, -7.66, 110.37, -7.65)
    content = {"type": "Feature", "properties": {"class": "Jalan"}, "geometry": farm.__geo_interface__}
    write_json(tmp_path / "DJI_0001.geojson", {"type": "FeatureCollection", "features": [content]})
    with pytest.raises(DataError, match=r"lies in longitude and latitude, but DJI_0001\.JPG does not say where"):
        opened(tmp_path, GRID, PHOTO, fill="background")


def test_labels_lie_in_the_folder_above_images(tmp_path: Path) -> None:
    mask = save(tmp_path / "masks" / "north" / "DJI_0001.png", np.ones((6, 8), np.uint8))
    for source in ("north/DJI_0001.JPG", "north/images/DJI_0001.JPG", "north/images/x/../DJI_0001.JPG"):
        assert find_label_file(tmp_path / "masks", Path(source)) == mask
    assert find_label_file(tmp_path / "masks", Path("south/images/DJI_0001.JPG")) is None


def test_a_photo_that_is_cut_at_another_resolution(tmp_path: Path) -> None:
    source = save(tmp_path / "DJI_0001.jpg", np.zeros((6, 8, 3), np.uint8))
    stored = np.arange(48).reshape(6, 8).astype(np.uint8) % 7
    save(tmp_path / "masks" / "DJI_0001.png", stored)
    coarse = Grid(2, 2, Affine.scale(3.0))
    assert whole(opened(tmp_path / "masks", coarse, source), coarse).tolist() == stored[1::3, 1:5:3].tolist()
    beyond = Grid(3, 3, Affine.scale(3.0))
    expected = np.full((3, 3), 255, np.uint8)
    expected[:2] = stored[1::3, 1::3]
    np.testing.assert_array_equal(whole(opened(tmp_path / "masks", beyond, source), beyond), expected)
    fine = Grid(12, 16, Affine.scale(0.5))
    expected = stored.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(whole(opened(tmp_path / "masks", fine, source), fine), expected)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the real imagery is not part of the repository")
@pytest.mark.parametrize(("tile", "part"), [("Tile 2", 3), ("Tile 8", 3)])
def test_real_masks_of_both_kinds(tile: str, part: int) -> None:
    folder = SHARED_DATA / "aerial-labelled"
    class_map = ClassMap.from_csv(folder / "class_mapping.csv")
    source = folder / tile / "images" / f"image_part_{part:03d}.jpg"
    with Image.open(source) as picture:
        grid = photo_grid(picture.height, picture.width)
    labels = open_labels(folder / tile / "masks", grid, source, class_map, LabelOptions())
    assert labels is not None
    expected = read_mask(folder / tile / "masks" / f"image_part_{part:03d}.png", class_map)
    np.testing.assert_array_equal(whole(labels, grid), expected.label_HW)
    assert {color: found.pixels for color, found in labels.facts.strangers.items()} == expected.unknown
    assert ((0, 0, 0) in expected.unknown) == (tile == "Tile 8")


# Run lengths


def encode(mask_HW: NDArray[np.bool_]) -> list[int]:
    """Counts pixel by pixel, the slow way."""
    counts, value = [0], False
    for pixel in mask_HW.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def as_text(counts: list[int]) -> str:
    """COCO's text: five bits at a time, the sixth says that more follow, the fifth of the last is the sign."""
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
            if not more:
                break
    return text


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_run_lengths_and_back(mask_HW: NDArray[np.bool_]) -> None:
    counts = encode(mask_HW)
    for form in (counts, as_text(counts), as_text(counts).encode()):
        np.testing.assert_array_equal(decode_rle(form, *mask_HW.shape), mask_HW)


def test_run_lengths_by_hand() -> None:
    assert decode_rle([1, 2, 3], 2, 3).tolist() == [[False, True, False], [True, False, False]]
    assert decode_rle("123", 2, 3).tolist() == [[False, True, False], [True, False, False]]
    assert decode_rle("T3", 100, 1).sum() == 0  # T is 36: 4, and more follows; 3 * 32 + 4 is 100
    # From the fourth run on differences: N is 30, less 32 is -2, to the 2 two before; S and M are 3 - 3 * 32 to the 95.
    assert decode_rle("12o2NSM", 100, 1).T.tolist() == decode_rle([1, 2, 95, 0, 2], 100, 1).T.tolist()


@pytest.mark.parametrize(
    ("counts", "told"),
    [([1, 2], "hold 3 pixels, not 2 x 2"), ([5, -1], "below zero"), ("1 2", "' ' is no character"), ("4P", "cut off")],
)
def test_damaged_run_lengths(counts: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        decode_rle(counts, 2, 2)


# COCO


def coco(annotations: list[dict[str, Any]], **image: Any) -> dict[str, Any]:
    record = {"id": 7, "file_name": "DJI_0001.JPG", "height": 6, "width": 8} | image
    return {
        "images": [{"id": 1, "file_name": "other.jpg", "height": 1, "width": 1}, record],
        "categories": [{"id": 40, "name": "jalan"}, {"id": 41, "name": "SNAKE-FRUIT"}, {"id": 42, "name": "car"}],
        "annotations": [{"id": n, "image_id": 7, "category_id": 40, **a} for n, a in enumerate(annotations)],
    }


def test_coco_polygons_and_run_lengths_in_their_order(tmp_path: Path) -> None:
    mask_HW = np.zeros((6, 8), bool)
    mask_HW[2:5, 1:3] = True
    path = write_json(
        tmp_path / "labels.json",
        coco(
            [
                {"segmentation": [[0, 0, 4, 0, 4, 4, 0, 4], [6, 0, 8, 0, 8, 2, 6, 2]]},
                {"category_id": 41, "segmentation": {"size": [6, 8], "counts": encode(mask_HW)}, "iscrowd": 1},
                {"segmentation": [[1, 4, 2, 4, 2, 5, 1, 5]]},
                {"segmentation": {"size": [6, 8], "counts": as_text(encode(~mask_HW & False))}},
                {"bbox": [0, 0, 2, 2], "segmentation": []},
                {"segmentation": [[1, 1, 2, 2]]},
            ]
        ),
    )
    expected = np.full((6, 8), 255)
    expected[:4, :4] = expected[:2, 6:] = 3
    expected[mask_HW] = 5
    expected[4, 1] = 3
    labels = opened(path, GRID, PHOTO)
    np.testing.assert_array_equal(whole(labels, GRID), expected)
    assert labels.facts.shapes == {"Jalan": 3, "Snake Fruit": 1}
    assert labels.facts.left_out == {
        "without an outline (a box or a point alone)": 1,
        "with fewer than three corners": 1,
    }
    expected[2:4, 1:3] = 3
    np.testing.assert_array_equal(whole(opened(path, GRID, PHOTO, priority=("Snake Fruit", "Jalan")), GRID), expected)
    assert open_labels(path, GRID, Path("DJI_0003.JPG"), SALAK, LabelOptions()) is None
    assert open_labels(path, photo_grid(1, 1), Path("other.jpg"), SALAK, LabelOptions()) is None, "without annotation"


SQUARE = {"segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]]}


@pytest.mark.parametrize(
    "name", ["dji_0001.jpg", "C:\\flights\\flight 1\\DJI_0001.JPG", "a/DJI_0001.JPG", "DJI_0001.png"]
)
def test_coco_names_photos_in_many_ways(tmp_path: Path, name: str) -> None:
    path = write_json(tmp_path / "labels.json", coco([SQUARE], file_name=name))
    assert opened(path, GRID, PHOTO).read(0, 0, 1, 1) == 3


def test_coco_ids_that_went_through_a_table(tmp_path: Path) -> None:
    content = coco([SQUARE | {"image_id": 7.0, "category_id": "40"}, SQUARE | {"image_id": 9}])
    labels = opened(write_json(tmp_path / "labels.json", content), GRID, PHOTO)
    assert labels.read(0, 0, 1, 1) == 3
    assert labels.facts.notes == [
        f"{tmp_path / 'labels.json'}: 1 annotations left out, of images that it does not list."
    ]
    content["images"] = [record | {"id": str(record["id"])} for record in content["images"]]
    assert opened(write_json(tmp_path / "labels.json", content), GRID, PHOTO).read(0, 0, 1, 1) == 3


@pytest.mark.parametrize("missing", [None, "", "?", float("nan")])
def test_coco_that_states_no_size(tmp_path: Path, missing: Any) -> None:
    path = write_json(tmp_path / "labels.json", coco([SQUARE], height=missing, width=missing))
    assert opened(path, GRID, PHOTO).read(0, 0, 1, 1) == 3


def test_coco_entries_of_the_very_name_go_first(tmp_path: Path) -> None:
    content = coco([SQUARE])
    content["images"].insert(0, {"id": 8, "file_name": "DJI_0001.png", "height": 6, "width": 8})
    path = write_json(tmp_path / "labels.json", content)
    assert opened(path, GRID, PHOTO).read(0, 0, 1, 1) == 3


def test_coco_names_in_other_writing(tmp_path: Path) -> None:
    """The e with an accent as one character in the file and as two in the name on disk, as macOS has it."""
    path = write_json(tmp_path / "labels.json", coco([SQUARE], file_name="p\u00e9 1.jpg"))
    assert opened(path, GRID, Path("pe\u0301 1.jpg")).read(0, 0, 1, 1) == 3


def test_coco_photos_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    content = coco([SQUARE], file_name="flight 1/DJI_0001.JPG")
    content["images"].append({"id": 8, "file_name": "flight 2/DJI_0001.JPG", "height": 6, "width": 8})
    path = write_json(tmp_path / "labels.json", content)
    assert opened(path, GRID, PHOTO).read(0, 0, 1, 1) == 3
    assert open_labels(path, GRID, Path("flight 2/DJI_0001.JPG"), SALAK, LabelOptions()) is None
    with pytest.raises(DataError, match=r"has 2 images called 'flight 1/DJI_0001\.JPG', and the path does not tell"):
        opened(path, GRID, Path("flight 3/DJI_0001.JPG"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            coco([SQUARE | {"category_id": 42}, SQUARE | {"category_id": 42}]),
            r"no class: 'car' \(2\); the classes are 0",
        ),
        (coco([SQUARE | {"category_id": 50}]), r"no class: 'id 50' \(1\)"),
        (coco([SQUARE], height="6", width=9.0), r"entry of 'DJI_0001\.JPG' has 6 x 9 pixels"),
        (coco([SQUARE], height=8, width=6), r"entry of 'DJI_0001\.JPG' has 8 x 6 pixels .*EXIF"),
        (
            coco([{"segmentation": {"size": [8, 6], "counts": [48]}}]),
            r"annotation 0 .*its mask is 8 x 6, the photo 6 x",
        ),
        (coco([{"segmentation": {"size": [6, 8], "counts": [47]}}]), r"annotation 0 .* hold 47 pixels, not 6 x 8"),
        (coco([{"segmentation": [[0, 0, 1, 1, 2, 2, 3]]}]), r"annotation 0 .* odd number of coordinates"),
        (coco([{"segmentation": [[0, 0, 1, 1, 2, "x"]]}]), r"annotation 0 .*could not convert"),
        (coco([SQUARE]) | {"images": [{"id": 7}]}, r"has an image without file_name"),
        (coco([]) | {"annotations": [{"image_id": 7}]}, r"has an annotation or category without id or name"),
        ([1, 2], r"holds no JSON object"),
        ({"hello": 1}, r"holds no labels that are known; COCO has"),
    ],
)
def test_coco_that_does_not_fit(tmp_path: Path, content: Any, told: str) -> None:
    path = write_json(tmp_path / "my labels.json", content)
    with pytest.raises(DataError, match=rf"my labels\.json.*{told}"):
        opened(path, GRID, PHOTO)


def test_json_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text('{"images": [')
    with pytest.raises(DataError, match=r"labels\.json is no JSON file, or it is cut off"):
        opened(path, GRID, PHOTO)


def test_panoptic_segments(tmp_path: Path) -> None:
    rgb = np.zeros((6, 8, 3), np.uint8)
    rgb[:3, :, 0] = 9
    rgb[3:5, :, 1] = 1
    content = coco([])
    segments = [{"id": 9, "category_id": 40}, {"id": 256, "category_id": 41}]
    content["annotations"] = [{"image_id": 7, "file_name": "DJI_0001.png", "segments_info": segments}]
    path = write_json(tmp_path / "panoptic.json", content)
    with pytest.raises(DataError, match=r"needs the picture of segments DJI_0001\.png, which is not at"):
        opened(path, GRID, PHOTO)
    save(tmp_path / "panoptic" / "DJI_0001.png", rgb)
    assert whole(opened(path, GRID, PHOTO), GRID)[:, 0].tolist() == [3, 3, 3, 5, 5, 255]


# LabelMe


def labelme(*shapes: dict[str, Any], **other: Any) -> dict[str, Any]:
    content = {"imagePath": "..\\photos\\DJI_0001.JPG", "imageHeight": 6, "imageWidth": 8, "imageData": None}
    return content | {"shapes": [{"label": "Jalan", "shape_type": "polygon", **shape} for shape in shapes]} | other


def test_labelme_shapes_in_their_order(tmp_path: Path) -> None:
    mask = io.BytesIO()
    Image.fromarray(np.array([[0, 1], [1, 1]], bool)).save(mask, "png")
    picture = base64.b64encode(mask.getvalue()).decode()
    path = write_json(
        tmp_path / "DJI_0001.json",
        labelme(
            {"points": [[0, 0], [4, 0], [4, 4], [0, 4]]},
            {"label": "snake fruit", "shape_type": "rectangle", "points": [[3, 3], [1, 1]]},
            {"label": "__ignore__", "points": [[0, 0], [1, 0], [1, 1], [0, 1]]},
            {"label": "2", "shape_type": "mask", "points": [[6, 4], [7, 5]], "mask": picture},
            {"shape_type": "point", "points": [[1, 1]]},
            {"shape_type": "line", "points": [[1, 1], [2, 2]]},
            {"shape_type": "line", "points": [[1, 1], [2, 2]]},
        ),
    )
    expected = np.full((6, 8), 255)
    expected[:4, :4] = 3
    expected[1:3, 1:3] = 5
    expected[0, 0] = 255
    expected[4:, 6:] = [[255, 2], [2, 2]]
    labels = opened(tmp_path, GRID, PHOTO)
    np.testing.assert_array_equal(whole(labels, GRID), expected)
    assert labels.facts.left_out == {"of type 'point'": 1, "of type 'line'": 2}
    assert labels.facts.shapes == {"Jalan": 1, "Snake Fruit": 1, "ignore": 1, "Bangunan": 1}
    np.testing.assert_array_equal(whole(opened(path, GRID, PHOTO), GRID), expected)
    assert open_labels(path, GRID, Path("DJI_0009.JPG"), SALAK, LabelOptions()) is None


@given(st.floats(-3, 33), st.floats(-3, 33), st.floats(0.3, 20))
def test_labelme_circles(tmp_path_factory: pytest.TempPathFactory, x: float, y: float, radius: float) -> None:
    circle = {"shape_type": "circle", "points": [[x, y], [x, y + radius]]}
    everything = {"label": "Bangunan", "points": [[0, 0], [30, 0], [30, 30], [0, 30]]}
    path = tmp_path_factory.mktemp("circles") / "a.json"
    write_json(path, labelme(everything, circle, imagePath="a.png", imageHeight=30, imageWidth=30))
    label_HW = whole(opened(path, photo_grid(30, 30), Path("a.png")), photo_grid(30, 30))
    col, row = np.meshgrid(np.arange(30) + 0.5, np.arange(30) + 0.5)
    beyond = np.hypot(col - x, row - y) - radius
    assert (label_HW[beyond < -0.03] == 3).all() and (label_HW[beyond > 1e-6] == 2).all()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (labelme({"label": "road", "points": []}), r"a label names what is no class: 'road' \(1\)"),
        (labelme(imagePath="DJI_0007.JPG"), r"is of the picture 'DJI_0007\.JPG', not of DJI_0001\.JPG"),
        (labelme(imageWidth="9"), r"its picture has 6 x 9 pixels .* has 6 x 8; label the picture itself"),
        (labelme({"points": [[0, 0], [1, 1]]}), r"shape 1 cannot be read \(a polygon needs three points"),
        (labelme({"points": [[0, 0, 1]]}), r"shape 1 .* no pairs of numbers"),
        (labelme({"shape_type": "circle", "points": [[0, 0]]}), r"shape 1 .*a circle needs two points"),
        (labelme({"shape_type": "circle", "points": [[0, 0], [0, 0]]}), r"shape 1 .*a circle has no radius"),
        (labelme({"shape_type": "circle", "points": [[0, 0], [1e18, 0]]}), r"shape 1 .*a radius of 1e\+18 pixels"),
        (labelme({"shape_type": "circle", "points": [[0, 0], [1.5e308, 1.5e308]]}), r"shape 1 .*a radius of inf"),
        (labelme({"shape_type": "mask", "points": [[0, 0], [1, 1]], "mask": "!!"}), r"shape 1 cannot be read"),
        (labelme({}), r"shape 1 cannot be read \('points'\)"),
        (labelme(shapes={}), r"holds no list of shapes"),
    ],
)
def test_labelme_that_does_not_fit(tmp_path: Path, content: Any, told: str) -> None:
    write_json(tmp_path / "DJI_0001.json", content)
    with pytest.raises(DataError, match=rf"DJI_0001\.json.*{told}"):
        opened(tmp_path, GRID, PHOTO)


def test_a_labelme_file_without_shapes_labels_nothing(tmp_path: Path) -> None:
    write_json(tmp_path / "DJI_0001.json", labelme())
    assert open_labels(tmp_path, GRID, PHOTO, SALAK, LabelOptions(fill="background")) is None


# Folders


def test_whose_label_a_file_is(tmp_path: Path) -> None:
    photos, labels = tmp_path / "photos 1", tmp_path / "labels"
    source = save(photos / "DJI_0001.png", np.zeros((6, 8, 3), np.uint8))
    assert find_label_file(photos, source) is None, "a photo is no label of itself"
    beside = save(photos / "DJI_0001_mask.png", np.zeros((6, 8), np.uint8))
    assert find_label_file(photos, source) == beside
    flat = save(labels / "dji_0001.PNG", np.zeros((6, 8), np.uint8))
    assert find_label_file(labels, source) == flat
    (labels / "DJI_0001.png.aux.xml").touch()
    (labels / "._DJI_0001.png").touch()
    (labels / "DJI_00011.png").touch()
    assert find_label_file(labels, source) == flat
    nested = save(labels / "photos 1" / "DJI_0001.tif", np.zeros((6, 8), np.uint8))
    assert find_label_file(labels, source) == nested
    write_json(labels / "photos 1" / "DJI_0001.json", labelme())
    with pytest.raises(
        DataError, match=r"holds several labels of DJI_0001\.png: DJI_0001\.json, DJI_0001\.tif; keep one"
    ):
        find_label_file(labels, source)
    assert [path.name for path in unused_label_files(photos, [source])] == []
    assert [path.name for path in unused_label_files(labels, [tmp_path / "x" / "DJI_0001.jpg"])] == ["DJI_00011.png"]


def test_jpeg_masks_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "DJI_0001.jpg", np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"DJI_0001\.jpg is a JPEG mask, whose colours are blurred"):
        opened(tmp_path, GRID, PHOTO)
    assert find_label_file(tmp_path, tmp_path / "DJI_0001.JPG") is None, "beside the photos it is the photo"


def test_a_folder_with_a_polygon_file_for_each_mosaic(tmp_path: Path) -> None:
    grid = grid_at()
    write_shapes(tmp_path / "mosaic.gpkg", [box(431000, 9153990, 431001, 9154000)])
    assert opened(tmp_path, grid).read(0, 0, 1, 1) == 3
    reviewed = tmp_path / "reviewed"
    reviewed.mkdir()
    assert open_labels(tmp_path, grid, SOURCE, SALAK, LabelOptions(reviewed=reviewed)) is None
    write_shapes(reviewed / "mosaic.shp", [box(431000.5, 9153990, 431001, 9154000)])
    assert opened(tmp_path, grid, reviewed=reviewed).read(0, 9, 1, 2).tolist() == [[255, 3]]
    with pytest.raises(DataError, match=r"nowhere does not exist"):
        opened(tmp_path, grid, reviewed=tmp_path / "nowhere")


def test_a_kind_that_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "labels.docx"
    path.touch()
    with pytest.raises(
        DataError, match=r"labels\.docx is no kind of labels that is known; labels are polygons \(\.gpkg"
    ):
        opened(path, GRID, PHOTO)


def test_a_mosaic_labelled_in_a_labelling_tool(tmp_path: Path) -> None:
    grid = grid_at(height=6, width=8)
    source = write_raster(tmp_path / "DJI_0001.tif", np.zeros((3, 6, 8), np.uint8), grid)
    write_json(tmp_path / "DJI_0001.json", labelme({"points": [[0, 0], [4, 0], [4, 4], [0, 4]]}))
    assert opened(tmp_path / "DJI_0001.json", grid, source).read(3, 3, 2, 2).tolist() == [[3, 255], [255, 255]]
    coarse = Grid(3, 4, grid.transform @ Affine.scale(2.0), grid.crs)
    label_HW = whole(opened(tmp_path / "DJI_0001.json", coarse, source), coarse)
    assert label_HW.tolist() == [[3, 3, 255, 255]] * 2 + [[255] * 4]


def test_summary_of_many_photos(tmp_path: Path) -> None:
    facts = []
    for name in ("a", "b"):
        write_json(tmp_path / f"{name}.json", labelme({"points": [[0, 0], [4, 0], [4, 4]]}, imagePath=f"{name}.png"))
        facts.append(opened(tmp_path, GRID, Path(f"{name}.png")).facts)
    assert summarise(facts) == ["Labels: LabelMe files, 2 files.", "Shapes: Jalan 2."]
    many = coco([SQUARE])
    many["images"][0] |= {"height": 6, "width": 8}
    many["annotations"].append({"id": 9, "image_id": 1, "category_id": 41, **SQUARE})
    path = write_json(tmp_path / "all.json", many)
    facts = [opened(path, GRID, Path(name)).facts for name in ("DJI_0001.JPG", "other.jpg")]
    assert summarise(facts) == [f"Labels: COCO annotations, {path}.", "Shapes: Jalan 1, Snake Fruit 1."]
