"""The demo, run once as a user runs it; what it leaves is judged from outside."""

import csv
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers import Salakseg
from numpy.typing import NDArray
from PIL import Image
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.metrics import jaccard_score

from salakseg.classes import SALAK
from salakseg.data.patches import index_patches
from salakseg.data.splits import Role, read_split

CLASSES = list(range(7))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, salakseg: Salakseg) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("demo") / "demo"
    return folder, salakseg("demo", "--out", folder)


@pytest.fixture(scope="module")
def folder(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    return demo[0]


def read(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as file:
        pixels: NDArray[np.uint8] = file.read()
    return pixels


def scores(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> tuple[float, float]:
    """The mIoU without and with background, by scikit-learn."""
    iou = jaccard_score(truth, prediction, labels=CLASSES, average=None)
    return float(iou[1:].mean()), float(iou.mean())


@pytest.fixture(scope="module")
def network_scores(folder: Path) -> tuple[float, float]:
    truth, prediction = read(folder / "orthomosaic_labels.tif")[0], read(folder / "demo_map.tif")[0]
    return scores(truth[truth != 255], prediction[truth != 255])


def test_the_demo_ends_with_its_score_its_files_and_what_to_type(
    demo: tuple[Path, subprocess.CompletedProcess[str]], network_scores: tuple[float, float]
) -> None:
    folder, done = demo
    found = re.search(r"unseen orthomosaic: (\d\.\d+) \(6 classes\) without background, (\d\.\d+)", done.stdout)
    assert found, done.stdout
    assert [float(found[1]), float(found[2])] == pytest.approx(network_scores, abs=6e-4)
    named = re.findall(rf"{re.escape(str(folder))}/\S+(?=:)", done.stdout)
    assert len(named) >= 8
    assert all(Path(path).exists() for path in named)
    for command in (
        "salakseg train --phase 2",
        "salakseg report ckpt.pt",
        "salakseg predict orthomosaic.tif --out map.tif",
    ):
        assert command in done.stdout


def test_a_colour_classifier_is_at_least_15_points_worse(folder: Path, network_scores: tuple[float, float]) -> None:
    """Trained on the colours of the pixels that the network learned from, tested on the same unseen mosaic."""
    index = index_patches(folder / "patches")
    labelled = read_split(folder / "patches" / "splits.csv", index).patches(index, Role.LABELLED)
    colors = np.concatenate([np.asarray(Image.open(index.image_path(p))).reshape(-1, 3) for p in labelled])
    labels = np.concatenate([np.asarray(Image.open(index.mask_path(p))).ravel() for p in labelled])
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(labels != 255))[:60_000]
    unseen, truth = read(folder / "orthomosaic.tif"), read(folder / "orthomosaic_labels.tif")[0]
    pixels, truth = unseen[:3].reshape(3, -1).T[truth.ravel() != 255], truth[truth != 255]
    for classifier in (
        HistGradientBoostingClassifier(max_iter=60, random_state=0),
        RandomForestClassifier(60, min_samples_leaf=5, n_jobs=2, random_state=0),
    ):
        classifier.fit(colors[chosen], labels[chosen])
        by_color = scores(truth, classifier.predict(pixels))
        for network, color in zip(network_scores, by_color, strict=True):
            assert network - color >= 0.15, f"{type(classifier).__name__}: {by_color} against {network_scores}"


def test_the_patches_are_like_the_fields(folder: Path) -> None:
    index = index_patches(folder / "patches")
    assert 0 < index.labelled_count < 0.5 * len(index.patches)
    masks = [np.asarray(Image.open(index.mask_path(p))) for p in index.patches if p.mask is not None]
    counts = np.bincount(np.concatenate([m.ravel() for m in masks]), minlength=256)[:7]
    assert (counts > 0).all()
    assert counts[1] / counts.sum() < 0.03  # water is rare
    with (folder / "patches" / "splits.csv").open() as file:
        assert {row["role"] for row in csv.DictReader(file)} >= {"labelled", "unlabelled", "val", "gap"}


def test_the_map_lies_on_its_orthomosaic(folder: Path) -> None:
    with rasterio.open(folder / "orthomosaic.tif") as source, rasterio.open(folder / "demo_map.tif") as land_cover:
        assert source.crs.to_epsg() == 32749
        assert (land_cover.crs, land_cover.transform, land_cover.shape) == (source.crs, source.transform, source.shape)
        np.testing.assert_array_equal(land_cover.read(1) != 255, source.read(4) != 0)
        assert {k: land_cover.colormap(1)[k][:3] for k in CLASSES} == {c.id: c.color for c in SALAK.classes}


def test_the_three_commands_work_in_the_folder(folder: Path, salakseg: Salakseg) -> None:
    """The first one is cut short; it is the same command otherwise."""
    short = ["--num-steps", 4, "--warmup-iters", 1, "--set", "evaluation.every=4", "--set", "selftraining.start=2"]
    salakseg("train", "--phase", 2, *short, cwd=folder)
    (run,) = (path for path in (folder / "runs").iterdir() if path.name.endswith("-phase2"))
    assert (run / "checkpoints" / "best.pt").is_file()
    done = salakseg("report", "ckpt.pt", cwd=folder)
    assert "val split" in done.stdout
    done = salakseg("predict", "orthomosaic.tif", "--out", "map.tif", cwd=folder)
    assert run.name in done.stderr.replace("\n", "")  # the newest run's best, and it says which
    assert (folder / "map.tif").is_file()


def test_a_folder_in_use_is_refused(folder: Path, salakseg: Salakseg) -> None:
    done = salakseg("demo", "--out", folder, check=False)
    assert done.returncode == 1
    assert "is not empty" in " ".join(done.stderr.split())
