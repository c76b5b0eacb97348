"""The QGIS style beside a map."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from salakseg.classes import SALAK, ClassMap, LandClass
from salakseg.errors import RasterError
from salakseg.mapping.style import style_path, write_qml

ODD_NAMES = ClassMap(
    (LandClass(0, 'a "b" <c> & d', (0, 1, 255)), LandClass(1, "Überschwemmung, 稻", (171, 205, 9))),
)


def palette(path: Path) -> list[dict[str, str]]:
    """The entries, found along the path of elements that QGIS follows."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == "qgis"
    assert root.get("version") == "3.0.0"
    renderer = root.find("pipe/rasterrenderer")
    assert renderer is not None
    assert {key: renderer.get(key) for key in ("type", "band", "opacity", "alphaBand")} == {
        "type": "paletted",
        "band": "1",
        "opacity": "1",
        "alphaBand": "-1",
    }
    return [dict(entry.attrib) for entry in renderer.findall("colorPalette/paletteEntry")]


def test_the_style_has_the_stem_of_the_map(tmp_path: Path) -> None:
    write_qml(tmp_path / "farm.v2.tif", SALAK)
    assert [path.name for path in tmp_path.iterdir()] == ["farm.v2.qml"]
    assert style_path(tmp_path / "farm.v2.tif") == tmp_path / "farm.v2.qml"


def test_every_class_has_an_opaque_entry_and_255_has_none(tmp_path: Path) -> None:
    write_qml(tmp_path / "map.tif", SALAK)
    entries = palette(tmp_path / "map.qml")
    assert [int(entry["value"]) for entry in entries] == list(range(7))
    assert [entry["label"] for entry in entries] == list(SALAK.names)
    assert [tuple(bytes.fromhex(entry["color"].removeprefix("#"))) for entry in entries] == [
        land_class.color for land_class in SALAK.classes
    ]
    assert {entry["alpha"] for entry in entries} == {"255"}


def test_names_and_colours_with_odd_signs_survive(tmp_path: Path) -> None:
    write_qml(tmp_path / "map.tif", ODD_NAMES)
    entries = palette(tmp_path / "map.qml")
    assert [entry["label"] for entry in entries] == list(ODD_NAMES.names)
    assert [entry["color"] for entry in entries] == ["#0001ff", "#abcd09"]


def test_an_older_style_is_replaced(tmp_path: Path) -> None:
    write_qml(tmp_path / "map.tif", SALAK)
    write_qml(tmp_path / "map.tif", ODD_NAMES)
    assert len(palette(tmp_path / "map.qml")) == 2


def test_a_style_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(RasterError, match=r"map\.qml cannot be written \(.*\); choose a folder") as caught:
        write_qml(tmp_path / "missing" / "map.tif", SALAK)
    assert "\n" not in str(caught.value)
