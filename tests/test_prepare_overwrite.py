"""Cutting sources anew: nothing of the patches before may stay among the new ones, and nobody's own work is lost."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cutting import ArrayLabels, label_source, random_image, random_label, stitch, times, write_mosaic
from PIL import Image

from salakseg.classes import IGNORE_INDEX
from salakseg.data.patches import PatchIndex, index_patches
from salakseg.errors import DataError
from salakseg.prepare.request import LabelSource, Request
from salakseg.prepare.run import prepare

SIDE = 96
LABEL_HW = random_label(SIDE, SIDE, labelled=1.0)
IMAGE_CHW = random_image(SIDE, SIDE)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_mosaic(tmp_path / "flights" / "site.tif", IMAGE_CHW)


def run(site: Path, out: Path, **more: Any) -> PatchIndex:
    settings: dict[str, Any] = {"patch": 32, "labels": label_source(LABEL_HW)}
    prepare(Request(sources=[site], root=out, **(settings | more)))
    return index_patches(out)


def damaged(root: Path) -> None:
    (root / ".prepare" / "flights" / "site.jsonl").write_text("{")


def gone(root: Path) -> None:
    shutil.rmtree(root / ".prepare")


@pytest.mark.parametrize("lose", [damaged, gone])
def test_no_older_patch_stays_where_the_record_is_lost(tmp_path: Path, site: Path, lose: Any) -> None:
    assert len(run(site, tmp_path / "root", patch=16).patches) == 36
    lose(tmp_path / "root")
    index = run(site, tmp_path / "root", overwrite=True)
    assert len(index.patches) == index.labelled_count == 9
    found_CHW, found_HW, _ = stitch(tmp_path / "root", "site", SIDE, SIDE, 32)
    np.testing.assert_array_equal(found_CHW, IMAGE_CHW)
    np.testing.assert_array_equal(found_HW, LABEL_HW)


def test_no_older_mask_stays_beside_a_patch_that_has_none_now(tmp_path: Path, site: Path) -> None:
    run(site, tmp_path / "root")
    gone(tmp_path / "root")
    fewer_HW = LABEL_HW.copy()
    fewer_HW[:, 32:] = IGNORE_INDEX
    index = run(site, tmp_path / "root", labels=label_source(fewer_HW), overwrite=True)
    assert (index.labelled_count, len(index.patches)) == (3, 9)


def test_labels_that_cannot_be_read_cost_no_older_patch(tmp_path: Path, site: Path) -> None:
    root = tmp_path / "root"
    run(site, root)
    before = times(root)

    def broken(*_: object) -> None:
        raise DataError("lables.gpkg does not exist.")

    with pytest.raises(DataError, match="does not exist"):
        run(site, root, labels=LabelSource({}, broken, lambda source: {}), overwrite=True)
    after = times(root)
    assert {path: after.get(path) for path in before if path.endswith(".png")} == {
        path: time for path, time in before.items() if path.endswith(".png")
    }


def test_a_source_whose_labels_cannot_be_read_stays_what_it_was(tmp_path: Path, site: Path) -> None:
    root, other = tmp_path / "root", write_mosaic(tmp_path / "flights" / "other.tif", IMAGE_CHW)
    prepare(Request(sources=[site, other], root=root, patch=32, labels=label_source(LABEL_HW, drawn="before")))
    sources = json.loads((root / "prepare.json").read_text())["sources"]

    def labels(_grid: Any, path: Path) -> Any:
        if path.name == "other.tif":
            raise DataError("other.gpkg is damaged.")
        return ArrayLabels(LABEL_HW)

    now = label_source(labels, drawn="now")
    done = prepare(Request(sources=[site, other], root=root, patch=32, labels=now, overwrite=True))
    assert done.failed == ("other.gpkg is damaged.",)
    assert index_patches(root).labelled_count == 18
    found = json.loads((root / "prepare.json").read_text())["sources"]
    assert {name: found[name] == sources[name] for name in found} == {"flights/site": False, "flights/other": True}
    mended = label_source(LABEL_HW, drawn="now")
    done = prepare(Request(sources=[other], root=root, patch=32, labels=mended, overwrite=True))
    assert (done.failed, len(done.cut)) == ((), 1)


def test_patches_that_were_cut_otherwise_do_not_stay_beside_new_ones(tmp_path: Path, site: Path) -> None:
    root = tmp_path / "root"
    run(site, root)

    def broken(*_: object) -> None:
        raise DataError("labels.gpkg does not exist.")

    with pytest.raises(DataError, match="does not exist"):
        run(site, root, labels=LabelSource({}, broken, lambda source: {}), patch=16, overwrite=True)
    assert not list(root.rglob("*_patch_*.png"))


def test_a_source_that_cannot_be_opened_does_not_keep_patches_of_another_size(tmp_path: Path, site: Path) -> None:
    root, other = tmp_path / "root", write_mosaic(tmp_path / "flights" / "other.tif", IMAGE_CHW)
    prepare(Request(sources=[site, other], root=root, patch=32))
    other.write_bytes(b"damaged")
    before = times(root)
    with pytest.raises(DataError, match=r"other\.tif .*nothing is cut without it"):
        prepare(Request(sources=[site, other], root=root, patch=16, overwrite=True))
    assert times(root) == before


def test_patches_of_a_name_in_other_capitals_are_somebody_elses(tmp_path: Path, site: Path) -> None:
    images = tmp_path / "root" / "flights" / "images"
    images.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(images / "Site_patch_000_000.png")
    run(site, tmp_path / "root", overwrite=True)
    assert (images / "Site_patch_000_000.png").exists()


def test_masks_that_were_drawn_by_hand_are_neither_lost_nor_paired_with_other_pictures(
    tmp_path: Path, site: Path
) -> None:
    root = tmp_path / "root"
    run(site, root, labels=None)
    drawn = root / "flights" / "masks" / "site_patch_000_001.png"
    drawn.parent.mkdir()
    Image.new("L", (32, 32), 3).save(drawn)
    before = times(root)
    with pytest.raises(DataError, match=r"site_patch_000_001\.png was not written by salakseg prepare, .*elsewhere"):
        run(site, root, labels=None, patch=16, overwrite=True)
    assert times(root) == before
    drawn.rename(tmp_path / "kept.png")
    assert len(run(site, root, labels=None, patch=16, overwrite=True).patches) == 36


def test_a_run_that_was_stopped_leaves_nothing_that_hinders(tmp_path: Path, site: Path) -> None:
    """Files of a strip have their names before the record has its line."""
    root = tmp_path / "root"
    run(site, root, patch=16)
    record = root / ".prepare" / "flights" / "site.jsonl"
    record.write_text("\n".join(record.read_text().split("\n")[:3]) + "\n")
    manifest = root / "prepare.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"sources": {}}))
    assert len(run(site, root, overwrite=True).patches) == 9
