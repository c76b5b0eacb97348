"""The whole way on a small synthetic plantation: patches, training, report, export, map.

Two surveyed plots are cut into patches in the field layout, most of them unlabelled; a network is trained on them, and
a third plot that it never saw is mapped. The folder that is left is a project: the usual commands work in it as they
are.
"""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from salakseg.classes import SALAK
from salakseg.data.scene import Scene, make_scene
from salakseg.errors import ProjectError
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.files import write_report
from salakseg.evaluate.judge import Question, judge
from salakseg.evaluate.metrics import Metrics, compute_metrics
from salakseg.evaluate.report import Report
from salakseg.export.onnx import export_onnx
from salakseg.export.settings import ExportSettings
from salakseg.mapping.predict import predict_map
from salakseg.mapping.preview import write_preview
from salakseg.network.checkpoint import load_checkpoint
from salakseg.network.onnx_engine import OnnxEngine
from salakseg.project import FILE_NAME
from salakseg.train.start import Request, start_run

Bar = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]

GSD_M = 0.10
CRS_OF_JAVA = 32749  # UTM 49 south
PLOT = 1280  # side of a surveyed plot in pixels
UNSEEN = (1024, 1280)  # height and width of the plot that is mapped
PATCH = 128
PHOTO = 2 * PATCH  # side of what one "photo" shows
LABELLED_SHARE = 0.36
ITERATIONS = 400  # of the recipe "quick": two and a half minutes on two cores

PROJECT = """\
data_root = "patches"
class_mapping = "patches/class_mapping.csv"
runs = "runs"

# The plantation is tiny and the network must train on two CPU cores: these settings go on top of every recipe that is
# run in this folder. Take them out for real data and a GPU.
[recipe]
ema_decay = 0.99

[recipe.network]
encoder = "timm-tf_efficientnet_lite0"

[recipe.data]
crop = 128
workers = 0
gap = 1

[recipe.augment]
scale_min = 128
scale_max = 160

[recipe.schedule]
iterations = 300
warmup = 20

[recipe.selftraining]
start = 100

[recipe.evaluation]
every = 100
"""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the walk came to.

    Attributes:
        report: On the held-out patches of the surveyed plots.
        unseen: Figures of the map of the plot that the network never saw.
        files: What was made, with a word on each.
        commands: What to type next, in the folder.
    """

    report: Report
    unseen: Metrics
    files: dict[Path, str]
    commands: tuple[str, ...]


def run_demo(folder: Path, seed: int, say: Callable[[str], None], bar: Bar) -> DemoResult:
    """Makes the demo folder.

    Args:
        folder: Where to; it must not hold anything yet.
        seed: Seed of the plantation.
        say: Called with a line worth reading.
        bar: Makes a progress bar from what is done and its unit.

    Raises:
        ProjectError: The folder is not empty or cannot be made.
    """
    _make_folder(folder)
    say("1/5 making a plantation: two plots with patches, one that the network will not see")
    unseen = _write_plantation(folder, seed)
    say("2/5 training")
    best = _train(folder, say, bar)
    say("3/5 report")
    checkpoint = folder / "ckpt.pt"
    shutil.copy(best, checkpoint)
    note = "A synthetic plantation, drawn by the demo: its figures say nothing about real imagery."
    report = judge([checkpoint], Question(notes=(note,)), lambda what: bar(what, "patches"))
    write_report(report, folder / "report")
    say("4/5 export")
    loaded = load_checkpoint(checkpoint)
    settings = ExportSettings(variant=loaded.choose(), size=loaded.default_tile)
    model = export_onnx(checkpoint, folder / "model.onnx", settings, quick=True).path
    say("5/5 mapping the unseen plot")
    predict_map(folder / "orthomosaic.tif", folder / "demo_map.tif", OnnxEngine(model))
    write_preview(folder / "orthomosaic.tif", folder / "demo_map.tif", folder / "demo_map.png", SALAK)
    return DemoResult(report, _measure(folder / "demo_map.tif", unseen), _files(folder), COMMANDS)


COMMANDS = (
    "salakseg train --phase 2",
    "salakseg report ckpt.pt",
    "salakseg predict orthomosaic.tif --out map.tif",
)


def _make_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ProjectError(f"{folder} is not empty; name a folder that does not exist yet.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProjectError(f"{folder} cannot be made ({error.strerror}); name another folder.") from error


def _write_plantation(folder: Path, seed: int) -> Scene:
    generator = np.random.default_rng(seed)
    for number in (1, 2):
        scene = make_scene(10 * seed + number, PLOT, PLOT)
        _write_patches(scene, folder / "patches" / f"plot-{number}", generator)
    rows = [f"{c.name},{' '.join(map(str, c.color))}" for c in SALAK.classes]
    text = "\n".join(["class_name,class_color", *rows]) + "\n"
    (folder / "patches" / "class_mapping.csv").write_text(text, encoding="utf-8")
    (folder / FILE_NAME).write_text(PROJECT, encoding="utf-8")
    unseen = make_scene(10 * seed + 3, *UNSEEN)
    _write_orthomosaic(unseen, folder)
    return unseen


def _write_patches(scene: Scene, folder: Path, generator: np.random.Generator) -> None:
    """Cuts a plot into photos and these into patches; a part of the photos gets masks."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    corners = [(y, x) for y in range(0, PLOT, PHOTO) for x in range(0, PLOT, PHOTO)]
    labelled = set(generator.permutation(len(corners))[: round(LABELLED_SHARE * len(corners))].tolist())
    for number, (top, left) in enumerate(corners):
        for row in range(PHOTO // PATCH):
            for col in range(PHOTO // PATCH):
                y, x = top + row * PATCH, left + col * PATCH
                window = slice(y, y + PATCH), slice(x, x + PATCH)
                if not scene.valid_HW[window].any():
                    continue
                name = f"DEMO_{number + 1:04d}_patch_{row:03d}_{col:03d}.png"
                Image.fromarray(scene.image_HWC[window]).save(folder / "images" / name)
                if number in labelled:
                    Image.fromarray(scene.label_HW[window]).save(folder / "masks" / name)


def _write_orthomosaic(scene: Scene, folder: Path) -> None:
    height, width = scene.label_HW.shape
    alpha_HW = np.where(scene.valid_HW, 255, 0).astype(np.uint8)
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "dtype": "uint8",
        "crs": CRS.from_epsg(CRS_OF_JAVA),
        "transform": from_origin(430000.0, 9160000.0, GSD_M, GSD_M),
        "tiled": True,
        "compress": "deflate",
    }
    with rasterio.open(folder / "orthomosaic.tif", "w", count=4, **profile) as file:
        file.write(np.concatenate([scene.image_HWC.transpose(2, 0, 1), alpha_HW[None]]))
        file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    with rasterio.open(folder / "orthomosaic_labels.tif", "w", count=1, nodata=255, **profile) as file:
        file.write(scene.label_HW, 1)
        file.write_colormap(1, {c.id: c.color for c in SALAK.classes})


def _train(folder: Path, say: Callable[[str], None], bar: Bar) -> Path:
    request = Request(
        recipe="quick",
        changes=[
            {"data": {"gap": 1, "test_share": 0.0}},  # the unseen plot is the test
            {"schedule": {"iterations": ITERATIONS}},
        ],
        data_root=folder / "patches",
        runs=folder / "runs",
        run_folder=folder / "runs" / "demo",
        gsd_m=GSD_M,
        device="cpu",
    )
    with bar("reading masks", "masks") as progress:
        trainer = start_run(request, say, progress)
    with bar("training", "steps") as progress:
        trainer.run(progress)
    return trainer.run_folder.best


def _measure(land_cover: Path, unseen: Scene) -> Metrics:
    with rasterio.open(land_cover) as file:
        prediction_HW: NDArray[np.uint8] = file.read(1)
    matrix = ConfusionMatrix(len(SALAK))
    matrix.update(unseen.label_HW, prediction_HW)
    return compute_metrics(matrix)


def _files(folder: Path) -> dict[Path, str]:
    return {
        folder / "demo_map.png": "the unseen orthomosaic beside its map: look at this first",
        folder / "demo_map.tif": "the map, for QGIS",
        folder / "orthomosaic.tif": "the unseen orthomosaic; orthomosaic_labels.tif is the truth",
        folder / "report" / "report.html": "how good the network is, class by class",
        folder / "model.onnx": "the exported network",
        folder / "ckpt.pt": "the checkpoint",
        folder / "patches": "patches in the field layout, most of them unlabelled",
        folder / FILE_NAME: "the project file",
    }
