from pathlib import Path

import numpy as np
import pytest

from salakseg.classes import MAX_CLASSES, SALAK, ClassMap, LandClass, parse_color
from salakseg.errors import ClassMapError

FIELD_TEAM = """class_name,class_color
__background__,0 0 0
Badan Air,255 50 50
Bangunan,255 225 50
Jalan,109 255 50
Pohon Berinang,50 255 167
Snake Fruit,50 167 255
Tanah Terbuka,109 50 255
"""


def read(tmp_path: Path, text: str, encoding: str = "utf-8") -> ClassMap:
    path = tmp_path / "class_mapping.csv"
    path.write_text(text, encoding=encoding)
    return ClassMap.from_csv(path)


def test_the_field_teams_file_is_the_built_in_map(tmp_path: Path) -> None:
    class_map = read(tmp_path, FIELD_TEAM)
    assert class_map.classes == SALAK.classes
    assert class_map.names[5] == "Snake Fruit"
    assert tuple(class_map.colors[1]) == (255, 50, 50)


def test_spreadsheets_write_marks_blank_lines_and_semicolons(tmp_path: Path) -> None:
    assert read(tmp_path, FIELD_TEAM, "utf-8-sig").classes == SALAK.classes
    assert read(tmp_path, FIELD_TEAM.replace(",", ";") + "\n\n").classes == SALAK.classes


@pytest.mark.parametrize(
    "text",
    [
        "class_id,class_name,color\n0,none,#000000\n1,water,#ff3232\n",
        "class_id,class_name,color\n1,water,#FF3232\n0,none,0 0 0\n",
        "class_id,class_name,color\n0,none,0,0,0\n1,water,255,50,50\n",
        'class_id,class_name,color\n0,none,"0,0,0"\n1,water,"255,50,50"\n',
        "name,r,g,b\nnone,0,0,0\nwater,255,50,50\n",
        "Class Index,Class Name,Color\n0,none,0 0 0\n1,water,255 50 50\n",
    ],
)
def test_tolerant_neighbours(tmp_path: Path, text: str) -> None:
    class_map = read(tmp_path, text)
    assert class_map.classes == (LandClass(0, "none", (0, 0, 0)), LandClass(1, "water", (255, 50, 50)))


def test_a_map_without_colours_gets_distinct_ones(tmp_path: Path) -> None:
    text = "Class Index,Class Name\n" + "".join(f"{k},c{k}\n" for k in range(40))
    colors = read(tmp_path, text).colors
    assert len(np.unique(colors, axis=0)) == 40
    assert tuple(colors[0]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class_name,class_color\na,0 0 0\nA ,1 1 1\n", "classes 0 and 1 have the same name"),
        ("class_name,class_color\na,0 0 0\nb,0 0 0\n", "same colour"),
        ("class_name,class_color\na,0 0 0\nb,0 0 256\n", r"line 3.*no colour"),
        ("class_name,class_color\na,0 0 0\nb,blue\n", "no colour"),
        ("class_name,class_color\na,0 0 0\nb,#ff33\n", "no colour"),
        ("class_name,class_color\na,0 0 0\n,1 1 1\n", "name is empty"),
        ("class_id,class_name\n0,a\n2,b\n", "without gap"),
        ("class_id,class_name\n0,a\n0,b\n", "without gap"),
        ("class_id,class_name\n0,a\nx,b\n", "no whole number"),
        ("class_name,class_color\na,0 0 0\n", "at least two"),
        ("class_name,class_color\n", "no classes"),
        ("", "no classes"),
        ("colour\n0 0 0\n1 1 1\n", "no column with class names"),
        ("class_id,class_name\n0,a,7\n1,b\n", "line 2 has 3 values"),
        ("name\n" + "".join(f"c{k}\n" for k in range(MAX_CLASSES + 1)), "at most 254"),
    ],
)
def test_a_bad_mapping_is_one_sentence_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ClassMapError, match=message) as error:
        read(tmp_path, text)
    assert "class_mapping.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_or_binary_mapping(tmp_path: Path) -> None:
    with pytest.raises(ClassMapError, match="does not exist"):
        ClassMap.from_csv(tmp_path / "nowhere.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ClassMapError, match="UTF-8"):
        ClassMap.from_csv(tmp_path / "binary.csv")


def test_records_go_there_and_back() -> None:
    assert ClassMap.from_records(SALAK.to_records()) == ClassMap(SALAK.classes)
    with pytest.raises(ClassMapError, match="without id, name or colour"):
        ClassMap.from_records([{"id": 0, "name": "a"}])


@pytest.mark.parametrize("text", ["1 2 3", "1,2,3", " (1, 2, 3) ", "#010203"])
def test_colour_spellings(text: str) -> None:
    assert parse_color(text, "here") == (1, 2, 3)
