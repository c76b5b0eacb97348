r"""Makes the starter model of the package from a run of `selftraining.py`.

    python benchmarks/selftraining.py --data DATA --iterations 600 --runs starter --try starter=supervised-all \
        --change augment.strong=1.0 augment.zoom_min=0.4 augment.zoom_max=2.0 strong.jitter_probability=1.0 \
        strong.hue=0.5 strong.saturation=0.95 strong.grey=0.3 strong.brightness=0.4 strong.contrast=0.4 strong.blur=0.3
    python benchmarks/starter.py --data DATA --run starter-s0-cpu-600

Takes the weights that were best on validation, and writes the bundle in ``salakseg/starter``: ONNX in half
precision, weights for fine-tuning, card. DATA is the folder that `selftraining.py --prepare` made.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from contest.records import Store, read_json
from prepare_aerial import ROLES
from safetensors.torch import load_file

from salakseg.data.patches import index_patches
from salakseg.data.splits import Role, Split
from salakseg.export.bundle import write_bundle
from salakseg.export.onnx import export_onnx
from salakseg.export.settings import ExportSettings
from salakseg.export.sidecars import BUNDLED
from salakseg.network.checkpoint import Checkpoint, save_checkpoint
from salakseg.network.config import IMAGENET_MEAN, IMAGENET_STD, NetworkConfig, published_recipe
from salakseg.starter import starter_model

SIDE = 256
"""Side of the ONNX file's input: the windows that the run was validated with."""

DATA = (
    "Semantic segmentation of aerial imagery, Humans in the Loop with the Mohammed Bin Rashid Space Centre, 2020, CC0"
)

NOTES = (
    "This is a starter: it shows what a map will look like, and is something to train on from. It knows water, "
    "buildings, roads, vegetation and bare land. It has never seen a salak palm, a plantation, or a drone's picture.",
    "It was trained on satellite images of a desert city at half their resolution; their ground sampling distance is "
    "not published. Hardly anything there is green but water, so of two green plantations it took more than half for "
    "water: no map of a farm to work with.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the prepared folder")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/selftraining"), help="results of selftraining.py")
    parser.add_argument("--run", required=True, help="name of the run, such as phase4-s0-cpu-1500")
    arguments = parser.parse_args()
    store = Store(arguments.out)
    record = read_json(store.record(arguments.run))
    checkpoint = checkpoint_of(record, store.weights(arguments.run, "best"), arguments.data)
    settings = ExportSettings(variant=checkpoint.variant, size=SIDE, precision="fp16", licence="CC0-1.0")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "starter.pt"
        save_checkpoint(checkpoint, path)
        model = export_onnx(path, Path(folder) / "model.onnx", settings, data_root=arguments.data).path
        shutil.rmtree(starter_model(), ignore_errors=True)
        write_bundle(path, model, starter_model(), notes=[*NOTES, f"Data: {DATA}."], lean=True)
    for name in (BUNDLED.stac, BUNDLED.script):  # for a registry, and for people without this package
        (starter_model() / name).unlink()
    for file in sorted(starter_model().iterdir()):
        print(f"{file.stat().st_size / 1e6:6.2f} MB  {file.name}")


def checkpoint_of(record: dict[str, Any], weights: Path, data: Path) -> Checkpoint:
    """The weights of a run with all that the run's record knows of them."""
    state = {
        name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in load_file(weights).items()
    }
    best = record["validation"]["best"]
    all_of_them = {Role.UNLABELLED: Role.LABELLED} if record["all_labelled"] else {}
    roles = {part: all_of_them.get(role, role) for part, role in ROLES.items()}
    matrix = np.sum([np.array(counts) for counts in best["images"].values()], axis=0)
    recipe = published_recipe(record["recipe"])
    return Checkpoint(
        network=NetworkConfig.model_validate(recipe["network"]),
        classes=record["classes"],
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        patch_size=recipe["data"]["crop"],
        student=state,
        ema=state,
        recipe_name=recipe["name"],
        recipe=recipe,
        split=Split({photo: roles[int(photo.name[-3:])] for photo in index_patches(data).photos()}).to_rows(),
        iteration=best["iteration"],
        evaluation={"part": "val", "patches": len(best["images"]), "matrix": matrix.tolist()},
    )


if __name__ == "__main__":
    main()
