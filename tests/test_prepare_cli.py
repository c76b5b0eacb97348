"""`salakseg prepare` as a command, and training from what it leaves."""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cutting import ArrayLabels, random_image, random_label, times, write_mosaic, write_photo
from helpers import TINY, command

from salakseg.classes import ClassMap
from salakseg.data.patches import index_patches
from salakseg.prepare.grid import Grid


@dataclass(frozen=True, slots=True)
class Options:
    """As `LabelOptions`."""

    class_column: str | None = None
    layer: str | None = None
    priority_column: str | None = None
    priority: tuple[str, ...] = ()
    fill: str = "ignore"
    all_touched: bool = False
    reviewed: Path | None = None


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands in for the reading of labels: random ones for all sources but those called bare; notes the options."""
    heard: list[Any] = []

    def open_labels(path: Path, grid: Grid, source: Path, class_map: ClassMap, options: Options) -> ArrayLabels | None:
        heard.append((path, class_map.names, options))
        return None if source.stem.startswith("bare") else ArrayLabels(random_label(grid.height, grid.width))

    room = ModuleType("salakseg.prepare.labelling.labels")
    vars(room).update(
        LabelOptions=Options,
        open_labels=open_labels,
        find_label_file=lambda folder, source: None,
        refuse_shared=lambda path, sources, class_map: None,
        summarise=lambda facts: [f"labels: {len(facts)} sources"],
    )
    monkeypatch.setitem(sys.modules, "salakseg.prepare.labelling.labels", room)
    return heard


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_mosaic(tmp_path / "flights" / "site.tif", random_image(100, 130))


def said(*arguments: object, **more: Any) -> str:
    return " ".join(command("prepare", *arguments, **more).output.split())


def test_the_summary(tmp_path: Path, site: Path, told: list[Any]) -> None:
    (tmp_path / "labels.gpkg").touch()
    output = said(site, "--labels", tmp_path / "labels.gpkg", "--out", tmp_path / "root", "--patch", 32)
    assert "flights/site 12 12 8" in output
    assert "left out: 8 patches that are valid to less than 50 % (--min-valid); " in output
    assert "labels: 1 sources" in output
    assert "Snake Fruit 1," in output and " %" in output
    assert "12 patches, 12 labelled, 0 unlabelled, index patches.gpkg" in output
    assert f"next: salakseg train --recipe quick --data-root {tmp_path / 'root'}" in output


def test_a_second_run_says_that_there_is_nothing_to_do(tmp_path: Path, site: Path) -> None:
    words = (site, "--out", tmp_path / "root", "--patch", 32)
    assert "draw labels and repeat the command with --labels" in said(*words)
    before = times(tmp_path / "root")
    assert "nothing to do: " in said(*words)
    assert times(tmp_path / "root") == before
    image = tmp_path / "root" / "flights" / "images" / "site_patch_001_001.png"
    image.unlink()
    assert f"attention: 1 files are gone or not as they were written, the first is {image}; they" in said(*words)


def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path, site: Path, told: list[Any]) -> None:
    words = (site, "--labels", tmp_path / "labels.gpkg", "--out", tmp_path / "root", "--patch", 32)
    output = said(*words, "--dry-run")
    assert "would get 12 patches, 12 of them labelled, 0.1 MB, from 20 places in 1 sources (every one was" in output
    assert not (tmp_path / "root").exists()
    said(*words)
    assert "1 sources are there already and would be left alone" in said(*words, "--dry-run")
    many = write_mosaic(tmp_path / "many.tif", random_image(160, 160))
    output = said(many, "--out", tmp_path / "more", "--patch", 8, "--dry-run")
    assert "about 400 patches, about 0 of them labelled" in output and "estimated from 200 drawn at random" in output


def test_the_flags_of_labels_reach_them(tmp_path: Path, site: Path, told: list[Any]) -> None:
    drawn, reviewed, classes = tmp_path / "labels.gpkg", tmp_path / "seen.gpkg", tmp_path / "c.csv"
    classes.write_text("class_name,r,g,b\n" + "".join(f"c{i},{i},0,0\n" for i in range(7)))
    words = ["--labels", drawn, "--class-mapping", classes, "--class-column", "kind", "--layer", "drawn"]
    words += ["--priority-column", "z", "--priority", "c1, c2", "--fill", "background", "--all-touched"]
    said(site, "--out", tmp_path / "root", "--patch", 32, *words, "--reviewed", reviewed)
    expected = Options("kind", "drawn", "z", ("c1", "c2"), "background", True, reviewed)
    assert told == [(drawn, tuple(f"c{i}" for i in range(7)), expected)]
    output = said(site, "--out", tmp_path / "root", "--patch", 32, *words, status=1)
    assert "made from something else (labels" in output  # without --reviewed


def test_the_project_tells_root_and_classes(tmp_path: Path, site: Path, told: list[Any]) -> None:
    (tmp_path / "c.csv").write_text("class_name,r,g,b\n" + "".join(f"c{i},{i},0,0\n" for i in range(7)))
    (tmp_path / "salakseg.toml").write_text('data_root = "patches"\nclass_mapping = "c.csv"\n')
    said(site, "--labels", "labels.gpkg", "--patch", 32, cwd=tmp_path)
    assert (tmp_path / "patches" / "class_mapping.csv").read_bytes() == (tmp_path / "c.csv").read_bytes()
    assert told[0][1][0] == "c0"
    (tmp_path / "salakseg.toml").write_text("")
    assert "Where do the patches go? Give --out" in said(site, cwd=tmp_path, status=1)


def test_wrong_usage_and_failures(tmp_path: Path, site: Path) -> None:
    out = ("--out", tmp_path / "root")
    for words in (("--resume", "--overwrite"), ("--patch", 4), ("--min-valid", 1.5), ("--fill", "0"), ("--bands", "1")):
        said(site, *out, *words, status=2)
    assert "does not exist; check the name" in said(tmp_path / "gone.tif", *out, status=1)
    (tmp_path / "bad.jpg").write_text("no picture")
    output = said(site, tmp_path / "bad.jpg", *out, "--patch", 32, status=1)
    assert "bad.jpg is no readable photo" in output
    assert "1 sources were not cut; mend them or leave them out, and repeat with --resume" in output
    assert "got no patch; try a lower --min-valid" in said(site, "--out", tmp_path / "b", "--patch", 1024, status=1)


def test_a_split_of_other_patches_is_kept_and_told(tmp_path: Path, told: list[Any]) -> None:
    site = write_mosaic(tmp_path / "flights" / "site.tif", random_image(320, 320))
    flags = site, "--out", tmp_path / "root", "--labels", tmp_path, "--stride", 32, "--min-valid", 1, "--overwrite"
    said(*flags, "--patch", 32)
    before = (tmp_path / "root" / "splits.csv").read_bytes()
    assert "splits.csv is kept next:" in said(*flags, "--patch", 32)
    output = said(*flags, "--patch", 128)
    assert "is kept, but was made for other patches" in output and "splits make" in output
    assert (tmp_path / "root" / "splits.csv").read_bytes() == before


def test_many_notes_are_counted(tmp_path: Path) -> None:
    for number in range(9):
        write_photo(tmp_path / "photos" / f"{number}.png", random_image(4, 4))
    write_photo(tmp_path / "photos" / "9.png", random_image(64, 64))
    output = said(tmp_path / "photos", "--out", tmp_path / "root", "--patch", 64)
    assert output.count("gives no patch") == 5 and "attention: and 4 more of this kind" in output


@pytest.mark.parametrize("kind", ["photos", "mosaics"])
def test_training_starts_from_the_result(tmp_path: Path, told: list[Any], kind: str) -> None:
    """Labelled and unlabelled sources; nothing lies between the two commands."""
    for number in range(6):
        name, image_CHW = f"DJI_{460 + number:04d}", random_image(64, 100, number)
        name = name if number < 4 else f"bare_{number}"
        if kind == "photos":
            write_photo(tmp_path / "salak 1" / f"{name}.png", image_CHW)
        else:
            write_mosaic(tmp_path / "salak 1" / f"{name}.tif", image_CHW)
    root = tmp_path / "root"
    said(tmp_path / "salak 1", "--labels", tmp_path / "labels", "--out", root, "--patch", 48)
    index = index_patches(root)
    assert index.labelled_count == 8 < len(index.patches) == 12
    words = ["--data-root", root, "--checkpoint-dir", tmp_path / "run", "--num-steps", 4, *TINY]
    command("train", "--phase", 2, *words)
    assert (tmp_path / "run" / "checkpoints" / "best.pt").is_file()
