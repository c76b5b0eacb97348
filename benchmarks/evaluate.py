"""What the evaluation of every variant costs beside a single forward pass, and how its memory grows with the patches.

    python benchmarks/evaluate.py                                  # times, on 64 patches
    python benchmarks/evaluate.py --memory                         # and the peaks of 321 and of 2,571 patches (Linux)
    python benchmarks/evaluate.py --device cuda --patches 512      # on a GPU
    python benchmarks/evaluate.py --encoder resnet18 --patches 16 --repeats 1     # a smoke run

Contestants alternate within each repeat; medians of `--repeats` (3) and ratios are printed, `--out FILE.json` keeps
every single measurement. Patches are 256 x 256, cut from the synthetic plantation, the network is DeepLabV3+ with three
heads and random weights, student and EMA.

single      one forward pass of the EMA over the patches, which lie in memory as tensors, and its argmax
variants    both forward passes and the class ids of all 14 variants, likewise
read        the same with patches read from disk while the network runs
evaluate    what `salakseg report` does: the same, all that is counted, and the analysis with its intervals

Memory is the peak of a process of its own, with EfficientNet-Lite0, which is the quicker one.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is loaded

import argparse
import json
import multiprocessing
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from peers import peak_memory_mb
from PIL import Image

from salakseg.classes import SALAK
from salakseg.data.patches import index_patches
from salakseg.data.scene import make_scene
from salakseg.evaluate.analyse import analyse
from salakseg.evaluate.ensemble import evaluate
from salakseg.evaluate.inference import read_batches, to_input
from salakseg.evaluate.subjects import held_out_patches, open_subjects
from salakseg.evaluate.variants import Opinions, predictions, ways_of
from salakseg.network.checkpoint import Checkpoint, save_checkpoint
from salakseg.network.config import IMAGENET_MEAN, IMAGENET_STD, NetworkConfig
from salakseg.network.heads import Logits, most_probable
from salakseg.network.model import Segmenter

PATCH = 256
A_PHOTO = 16  # patches of one photo, 1024 x 1024
MEMORY_PATCHES = (321, 2571)


def main() -> None:
    arguments = parse()
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_inputs(Path(folder), arguments.patches, arguments.encoder)
        records += times(checkpoint, arguments)
    if arguments.memory:
        records += memory()
    if arguments.out:
        arguments.out.write_text(json.dumps({"setting": setting(arguments), "measurements": records}, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=64)
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def setting(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "patches": arguments.patches,
        "encoder": arguments.encoder,
        "device": arguments.device,
        "repeats": arguments.repeats,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "machine": platform.platform(),
    }


def write_inputs(folder: Path, patches: int, encoder: str) -> Path:
    """A patch folder in the field layout, all of it test, and a checkpoint that goes with it."""
    root = folder / "patches"
    images, masks = root / "flight" / "images", root / "flight" / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    scene = make_scene(1, 4 * PATCH, 4 * PATCH)
    for number in range(patches):
        photo, place = divmod(number, A_PHOTO)
        row, col = divmod(place, 4)
        name = f"DJI_{photo:04d}_patch_{row:03d}_{col:03d}.png"
        if photo:  # every photo shows the same: reading costs what it costs, drawing scenes would take minutes
            first = f"DJI_0000_patch_{row:03d}_{col:03d}.png"
            shutil.copy(images / first, images / name)
            shutil.copy(masks / first, masks / name)
            continue
        window = slice(row * PATCH, (row + 1) * PATCH), slice(col * PATCH, (col + 1) * PATCH)
        Image.fromarray(scene.image_HWC[window]).save(images / name)
        Image.fromarray(scene.label_HW[window]).save(masks / name)
    torch.manual_seed(0)
    config = NetworkConfig(encoder=encoder, encoder_weights="none")
    states = [Segmenter(config, len(SALAK), load_weights=False).state_dict() for _ in range(2)]
    photos = sorted({patch.photo for patch in index_patches(root).patches})
    checkpoint = Checkpoint(
        network=config,
        classes=SALAK.to_records(),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        patch_size=PATCH,
        student=states[0],
        ema=states[1],
        recipe_name="random",
        recipe={"data": {"gap": 3}},
        data_root=str(root),
        split=[["flight", photo, "test"] for photo in photos],
    )
    save_checkpoint(checkpoint, folder / "random.pt")
    return folder / "random.pt"


def times(checkpoint: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    device = torch.device(arguments.device)
    subjects = open_subjects([checkpoint], device)
    first = subjects[0]
    index = index_patches(Path(first.checkpoint.data_root))
    _, patches, _ = held_out_patches(subjects, index, "test")
    class_map = first.checkpoint.class_map
    heads = [way.variant.heads for way in ways_of(first.heads, tta=False, weights=("ema",))]
    batches = [
        to_input(batch, device, IMAGENET_MEAN, IMAGENET_STD)
        for batch in read_batches(index, patches, class_map, first.heads * len(class_map))
    ]

    @torch.inference_mode()
    def single() -> None:
        for image_BCHW in batches:
            most_probable(first.model("ema")(image_BCHW).mean_BKHW, 1).to(torch.uint8).cpu()

    @torch.inference_mode()
    def predict(image_BCHW: torch.Tensor) -> None:
        for weights in ("ema", "student"):
            logits: Logits = first.model(weights)(image_BCHW)
            for ids in predictions(Opinions.of(logits), heads).values():
                ids.cpu()

    def variants() -> None:
        for image_BCHW in batches:
            predict(image_BCHW)

    def read() -> None:
        for batch in read_batches(index, patches, class_map, first.heads * len(class_map)):
            predict(to_input(batch, device, IMAGENET_MEAN, IMAGENET_STD))

    def everything() -> None:
        analyse(evaluate(subjects, index, patches), subjects)

    contestants: dict[str, Callable[[], None]] = {
        "single": single,
        "variants": variants,
        "read": read,
        "evaluate": everything,
    }
    for run in contestants.values():
        run()  # untimed: the first run of anything is slower
    records = []
    for repeat in range(arguments.repeats):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            records.append({"contestant": name, "repeat": repeat, "seconds": time.perf_counter() - start})
            print(f"{repeat} {name:<9} {records[-1]['seconds']:7.2f} s", flush=True)
    median = {
        name: statistics.median(record["seconds"] for record in records if record["contestant"] == name)
        for name in contestants
    }
    print(f"all variants / single pass       {median['variants'] / median['single']:.3f}   the bar is 2.40")
    print(f"evaluate / all variants, read    {median['evaluate'] / median['read']:.3f}   the bar is 1.10")
    print(f"read / all variants              {median['read'] / median['variants']:.3f}")
    print(f"evaluate / single pass           {median['evaluate'] / median['single']:.3f}")
    return records


def memory() -> list[dict[str, Any]]:
    records = []
    for patches in MEMORY_PATCHES:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            peak = pool.submit(peak_of, patches).result()
        records.append({"contestant": "memory", "patches": patches, "peak_mb": peak})
        print(f"{patches} patches: peak {peak:.0f} MB", flush=True)
    few, many = (record["peak_mb"] for record in records)
    print(f"{MEMORY_PATCHES[1]} over {MEMORY_PATCHES[0]} patches {many / few:.3f}")
    return records


def peak_of(patches: int) -> float:
    """Peak memory of this process over evaluation and analysis, MB."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_inputs(Path(folder), patches, "timm-tf_efficientnet_lite0")
        subjects = open_subjects([checkpoint], torch.device("cpu"))
        index = index_patches(Path(subjects[0].checkpoint.data_root))
        analyse(evaluate(subjects, index, held_out_patches(subjects, index, "test")[1]), subjects)
    return peak_memory_mb()


if __name__ == "__main__":
    main()
