"""What the trainer makes of a device: the whole loop beside its bare step, its data path, its memory, and a plain loop.

    python benchmarks/train.py --device cuda --out FILE.json      # everything, two to three minutes on an H100
    python benchmarks/train.py --device cpu --only data           # the data path alone
    python benchmarks/train.py --encoder resnet18 --crop 64 --steps 4 --repeats 1      # a smoke run

Rows alternate within each repeat; medians of `--repeats` and ratios are printed, `--out` keeps every measurement.
Patches of 256 x 256 are cut from the synthetic plantation. The network is the recipe's DeepLabV3+ with three heads and
random weights, the recipe phase 2 with self-training from the first step on, 8 + 8 patches a step.

bare        the step alone, on views that lie on the device: passes, losses, gradient, clipping, optimizer, average
loop        `Trainer.run` with its loader from a raw pack, transfer, views, and log, with 0, 1 and 2 workers
plain       a loop of the V3 kind: float32, PNG decoding and views by Pillow and numpy in the process, losses read
settings    the step with views, precision and layout switched one by one
data        patches a second into the augmented batch on the CPU: the pack, PNG files, and the plain loader
memory      peak of the device in phase 2 with every labelled batch at the largest scale, 320
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is loaded

import argparse
import json
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from salakseg.classes import SALAK
from salakseg.data.pack import Codec
from salakseg.data.packing import PACK, pack_patches
from salakseg.data.patches import PatchIndex, index_patches
from salakseg.data.scene import make_scene
from salakseg.data.splits import Role
from salakseg.network.config import IMAGENET_MEAN
from salakseg.network.model import Segmenter
from salakseg.train.augment import sides, source_side, weak_view
from salakseg.train.branches import MULTI_SCALE_EVERY
from salakseg.train.data import PatchStream, Steps, step_batches
from salakseg.train.loop import Trainer
from salakseg.train.start import Request, start_run

PATCH = 256
PHOTOS, A_PHOTO = 16, 16  # photos, and patches of one of them
ROWS = ("bare", "loop", "plain", "settings", "data", "memory")


def main() -> None:
    arguments = parse()
    device = torch.device(arguments.device)
    if device.type == "cpu":
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        root = write_patches(Path(folder) / "patches")
        figures = measure(root, device, arguments)
    report(figures)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(setting(device, arguments) | {"figures": figures}, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--crop", type=int, default=PATCH)
    parser.add_argument("--steps", type=int, default=60, help="steps that are timed in each repeat")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of a CPU")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--compile", action="store_true", help="torch.compile among the settings: a minute more")
    parser.add_argument("--sync", action="store_true", help="list what waits for the device in 20 steps, and stop")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def setting(device: torch.device, arguments: argparse.Namespace) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    own = {key: value for key, value in vars(arguments).items() if key != "out"}
    return {"device": name, "cores": cores, "torch": torch.__version__, "python": platform.python_version(), **own}


def measure(root: Path, device: torch.device, arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.sync:
        return {"sync": sync(root, device, arguments)}
    rows: dict[str, Callable[[], Any]] = {}
    if "bare" in arguments.only:
        rows["bare"] = lambda: bare(root, device, arguments)
    if "loop" in arguments.only:
        for workers in (0, 1, 2):
            rows[f"loop, {workers} workers"] = lambda w=workers: loop(root, device, arguments, w)
    if "plain" in arguments.only:
        rows["plain"] = lambda: plain(root, device, arguments)
    if device.type == "cuda":
        meet_all_sides(root, device, arguments)
    figures: dict[str, Any] = {name: [] for name in rows}
    for repeat in range(arguments.repeats):
        for name, row in rows.items():
            figures[name].append(row())
            print(f"{repeat + 1}: {name} {1000 * figures[name][-1]:.1f} ms a step", flush=True)
    if "data" in arguments.only:
        figures["data"] = data_path(root, arguments)
    if "memory" in arguments.only and device.type == "cuda":
        figures["memory"] = memory(root, device, arguments)
    if "settings" in arguments.only:
        figures["settings"] = settings(root, device, arguments)
    return figures


# ---- rows


def meet_all_sides(root: Path, device: torch.device, arguments: argparse.Namespace) -> None:
    """A step at each side of multi-scale batches: cuDNN plans convolutions for a size once in the life of a process,
    which a run of 75,000 steps does not notice, and one of 60 does."""
    for side in sides(trainer_of(root, device, arguments).recipe.augment):
        trainer = trainer_of(root, device, arguments, augment__scale_min=side, augment__scale_max=side)
        trainer.iteration = MULTI_SCALE_EVERY - 1
        trainer.step(next(trainer.labelled_batches()), next(trainer.unlabelled_batches()))


def trainer_of(root: Path, device: torch.device, arguments: argparse.Namespace, **changes: object) -> Trainer:
    """A trainer of phase 2 on the patches; `changes` are settings such as data__workers."""
    table: dict[str, dict[str, Any]] = {
        "network": {"encoder": arguments.encoder, "encoder_weights": "none"},
        "data": {"workers": 0, "gap": 0, "crop": arguments.crop},
        "schedule": {"iterations": 100_000},
        "selftraining": {"start": 0},
        "evaluation": {"every": 100_000},
    }
    top: dict[str, Any] = {}
    for key, value in changes.items():
        section, _, name = key.partition("__")
        (table.setdefault(section, {}) if name else top)[name or section] = value
    run = Path(tempfile.mkdtemp(dir=root.parent)) / "run"
    request = Request("phase2", [table, top], root, run.parent, run_folder=run, device=device.type)
    return start_run(request, lambda _: None, lambda *_: None)


def bare(root: Path, device: torch.device, arguments: argparse.Namespace) -> float:
    """Seconds of a step on views that lie on the device; eight batches in turn, every tenth one at another scale."""
    trainer = trainer_of(root, device, arguments)
    labelled, unlabelled = trainer.labelled_batches(), trainer.unlabelled_batches()
    views = []
    for number in range(10):
        trainer.iteration = number
        views.append(trainer.branches(next(labelled), next(unlabelled))[0])
    return timed(device, arguments.steps, lambda n: trainer.learn(views[n % len(views)]))


def loop(root: Path, device: torch.device, arguments: argparse.Namespace, workers: int) -> float:
    """Seconds of a step of the whole loop."""
    warm = warm_up(arguments)
    length = {"schedule__iterations": warm + arguments.steps + 1, "schedule__warmup": 1}
    trainer = trainer_of(root, device, arguments, data__workers=workers, **length)
    clock: list[float] = []

    def progress(done: int, _total: int) -> None:
        if done in (warm, warm + arguments.steps):
            wait(device)
            clock.append(time.perf_counter())
            if done > warm:
                raise KeyboardInterrupt  # before the evaluation at the end

    try:
        trainer.run(progress)
    except KeyboardInterrupt:
        pass
    return (clock[1] - clock[0]) / arguments.steps


def plain(root: Path, device: torch.device, arguments: argparse.Namespace) -> float:
    """Seconds of a step of a loop as trainers of V3's kind have it, on the same network and batch."""
    trainer = trainer_of(root, device, arguments)
    model = Segmenter(trainer.recipe.network, len(SALAK), load_weights=False).to(device)
    average = Segmenter(trainer.recipe.network, len(SALAK), load_weights=False).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4, foreach=False)
    weights = trainer.objective.class_weights_K
    labelled = plain_batches(root, trainer, Role.LABELLED, arguments.crop)
    unlabelled = plain_batches(root, trainer, Role.UNLABELLED, arguments.crop)
    model.train()
    torch.backends.cudnn.benchmark = False  # such loops do not ask for it, and it takes a minute in float32

    def loss_of(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        ce = functional.cross_entropy(logits, label, weights, ignore_index=255)
        prob, valid = logits.softmax(1), (label != 255).unsqueeze(1)
        truth = functional.one_hot(label.where(valid[:, 0], 0), len(SALAK)).permute(0, 3, 1, 2)
        overlap, total = (prob * truth * valid).sum((2, 3)), ((prob + truth) * valid).sum((2, 3))
        return 0.4 * ce + 0.4 * (1 - (2 * overlap + 1) / (total + 1)).mean()

    def step(number: int) -> None:
        (image, label), (other, _) = next(labelled), next(unlabelled)
        image, label, other = (array.to(device) for array in (image, label, other))
        if number % 10 == 9:
            side = (320, 320)
            image = functional.interpolate(image, side, mode="bilinear")
            label = functional.interpolate(label[:, None].float(), side, mode="nearest")[:, 0].long()
        loss = loss_of(model(image).mean_BKHW, label)
        logits = model(other)
        prob, pseudo = logits.heads_BNKHW.softmax(2).mean(1).detach().max(1)
        kept = (prob >= 0.5) | (pseudo == 0)
        pseudo[~kept] = 255
        self_training = loss_of(logits.mean_BKHW, pseudo)
        total = loss + 1.5 * self_training
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        with torch.no_grad():
            for own, live in zip(average.parameters(), model.parameters(), strict=True):
                own.mul_(0.9995).add_(live, alpha=0.0005)
        _ = (loss.item(), self_training.item(), kept.sum().item())  # as such loops log

    return timed(device, max(arguments.steps // 3, 1), step)


def plain_batches(root: Path, trainer: Trainer, role: Role, crop: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of 8, decoded, scaled, cropped and mirrored by Pillow and numpy in this process."""
    patches = trainer.data.part(role)
    generator = np.random.default_rng(0)
    while True:
        items = []
        for place in generator.integers(0, len(patches), trainer.recipe.data.batch_size):
            patch = patches[int(place)]
            image = Image.open(root / patch.folder / "images" / patch.image).convert("RGB")
            mask = (
                Image.open(root / patch.folder / "masks" / patch.mask) if patch.mask and role is Role.LABELLED else None
            )
            items.append(plain_view(image, mask, crop, generator))
        images, labels = (np.stack(arrays) for arrays in zip(*items, strict=True))
        yield torch.from_numpy(images), torch.from_numpy(labels)


def plain_view(
    image: Image.Image, mask: Image.Image | None, crop: int, generator: np.random.Generator
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    factor = 0.5 + 0.1 * int(generator.integers(0, 12))
    size = (round(image.width * factor), round(image.height * factor))
    pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR), np.float32) - 255 * np.array(
        IMAGENET_MEAN, np.float32
    )
    label = (
        np.zeros(size[::-1], np.int64)
        if mask is None
        else np.asarray(mask.resize(size, Image.Resampling.NEAREST), np.int64)
    )
    pad_y, pad_x = max(crop - size[1], 0), max(crop - size[0], 0)
    pixels = np.pad(pixels, ((0, pad_y), (0, pad_x), (0, 0)))
    label = np.pad(label, ((0, pad_y), (0, pad_x)), constant_values=255)
    y, x = (int(generator.integers(0, side - crop + 1)) for side in label.shape)
    pixels, label = pixels[y : y + crop, x : x + crop], label[y : y + crop, x : x + crop]
    if generator.random() < 0.5:
        pixels, label = pixels[:, ::-1], label[:, ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)), np.ascontiguousarray(label)


def settings(root: Path, device: torch.device, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of a step with its views, with one setting changed at a time."""
    changes: dict[str, dict[str, Any]] = {"as it is": {}, "joint forward": {"performance__joint_forward": True}}
    if device.type == "cuda":
        changes["float32"] = {"precision": "32-true"}
        changes["channels first"] = {"performance__channels_last": False}
    if arguments.compile:
        changes["compile"] = {"performance__compile": True}
        changes["compile, joint forward"] = {"performance__compile": True, "performance__joint_forward": True}
    changes["phase 4"] = {}
    figures: dict[str, list[float]] = {}
    for name, change in changes.items():
        extra = {"augment__multi_scale": False, **change}
        trainer = (
            trainer_of(root, device, arguments, **extra) if name != "phase 4" else phase4_of(root, device, arguments)
        )
        labelled = [next(trainer.labelled_batches()).to(device) for _ in range(1)]
        unlabelled = [batch.to(device) for batch in [next(trainer.unlabelled_batches())] if batch is not None]
        figures[name] = [
            timed(device, arguments.steps, lambda n, t=trainer, a=labelled, b=unlabelled: t.step(a[0], b[0]))
            for _ in range(arguments.repeats)
        ]
        print(f"settings: {name} {1000 * statistics.median(figures[name]):.1f} ms a step", flush=True)
    return figures


def phase4_of(root: Path, device: torch.device, arguments: argparse.Namespace) -> Trainer:
    table = {
        "network": {"encoder": arguments.encoder, "encoder_weights": "none"},
        "data": {"workers": 0, "gap": 0, "crop": arguments.crop},
        "selftraining": {"start": 0},
    }
    run = Path(tempfile.mkdtemp(dir=root.parent)) / "run"
    request = Request("phase4", [table], root, run.parent, run_folder=run, device=device.type)
    return start_run(request, lambda _: None, lambda *_: None)


def data_path(root: Path, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Patches a second into the augmented batch, on the CPU, labelled ones."""
    cpu = torch.device("cpu")
    trainer = trainer_of(root, cpu, arguments)
    with_pack = trainer.data.index
    without = index_patches(root)
    steps = max(arguments.steps // 2, 2)

    def ours(index: PatchIndex, workers: int) -> float:
        config = trainer.recipe.augment
        stream = PatchStream(
            index, trainer.data.part(Role.LABELLED), SALAK, source_side(config, arguments.crop), seed=0
        )
        reading = Steps([(stream, 0)], trainer.recipe.data.batch_size)
        ready = step_batches(reading, 0, warm_up(arguments) + steps, workers, pin_memory=False)
        rng = np.random.default_rng(0)

        def view(_: int) -> None:
            (batch,) = next(ready)
            assert batch is not None  # the stream takes part from the first step on
            weak_view(batch, config, arguments.crop, rng)

        seconds = timed(cpu, steps, view, warm_up(arguments))
        ready.close()
        return trainer.recipe.data.batch_size / seconds

    def theirs() -> float:
        ready = plain_batches(root, trainer, Role.LABELLED, arguments.crop)
        return trainer.recipe.data.batch_size / timed(cpu, steps, lambda _: next(ready), 2)

    rows: dict[str, Callable[[], float]] = {"plain PNG loader": theirs}
    for workers in (0, 1, 2):
        rows[f"pack, {workers} workers"] = lambda w=workers: ours(with_pack, w)
    rows["PNG files, 2 workers"] = lambda: ours(without, 2)
    figures: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(arguments.repeats):
        for name, row in rows.items():
            figures[name].append(row())
    for name, values in figures.items():
        print(f"data: {name} {statistics.median(values):.0f} patches/s", flush=True)
    return figures


def memory(root: Path, device: torch.device, arguments: argparse.Namespace) -> dict[str, float]:
    """Peak of the device in bytes, with the labelled batch at 320 pixels in every tenth step."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    trainer = trainer_of(root, device, arguments, augment__scale_min=320, augment__scale_max=320)
    labelled, unlabelled = trainer.labelled_batches(), trainer.unlabelled_batches()
    for _ in range(25):
        trainer.step(next(labelled), next(unlabelled))
    wait(device)
    return {
        "allocated": torch.cuda.max_memory_allocated(),
        "reserved": torch.cuda.max_memory_reserved(),
    }


def sync(root: Path, device: torch.device, arguments: argparse.Namespace) -> str:
    """20 steps in which torch names whatever waits for the device."""
    trainer = trainer_of(root, device, arguments, augment__multi_scale=False)
    labelled, unlabelled = trainer.labelled_batches(), trainer.unlabelled_batches()
    for number in range(20):
        if number == 5:
            torch.cuda.set_sync_debug_mode("warn")
        trainer.step(next(labelled), next(unlabelled))
    torch.cuda.set_sync_debug_mode("default")
    return "see the warnings above"


# ---- timing, inputs, table


def timed(device: torch.device, steps: int, step: Callable[[int], object], warm: int = 12) -> float:
    """Mean seconds of a step, after some that do not count."""
    warm = warm if device.type == "cuda" else min(warm, 2)
    for number in range(warm):
        step(number)
    wait(device)
    start = time.perf_counter()
    for number in range(warm, warm + steps):
        step(number)
    wait(device)
    return (time.perf_counter() - start) / steps


def warm_up(arguments: argparse.Namespace) -> int:
    return 20 if arguments.device == "cuda" else 2


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def write_patches(root: Path) -> Path:
    """Sixteen photos of sixteen patches, the first eleven with masks, as PNG files and as a raw pack."""
    scenes = [make_scene(seed, 4 * PATCH, 4 * PATCH) for seed in range(2)]  # drawing one takes seconds
    for number in range(PHOTOS):
        turns, scene = number // 2, scenes[number % 2]
        image_HWC, label_HW = np.rot90(scene.image_HWC, turns), np.rot90(scene.label_HW, turns)
        folder = root / ("salak-1-1" if number < 11 else "salak-1-2")
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "masks").mkdir(exist_ok=True)
        for place in range(A_PHOTO):
            row, column = divmod(place, 4)
            window = (slice(PATCH * row, PATCH * (row + 1)), slice(PATCH * column, PATCH * (column + 1)))
            name = f"DJI_{number:04d}_patch_{row:03d}_{column:03d}.png"
            Image.fromarray(image_HWC[window]).save(folder / "images" / name)
            if number < 11:
                Image.fromarray(label_HW[window]).save(folder / "masks" / name)
    pack_patches(index_patches(root), root / PACK, SALAK, Codec.RAW)
    shutil.rmtree(root / f"{PACK}.unfinished", ignore_errors=True)
    return root


def report(figures: dict[str, Any]) -> None:
    median = {
        name: statistics.median(values) for name, values in figures.items() if isinstance(values, list) and values
    }
    for name, seconds in median.items():
        against = f"   {median['bare'] / seconds:.3f} of the bare step's speed" if "bare" in median else ""
        if "plain" in median and name.startswith("loop"):
            against += f"   {median['plain'] / seconds:.2f} times the plain loop"
        print(f"{name:24} {1000 * seconds:8.2f} ms a step{against}")
    if "data" in figures:
        speeds = {name: statistics.median(values) for name, values in figures["data"].items()}
        for name, speed in speeds.items():
            print(f"{name:24} {speed:8.0f} patches/s   {speed / speeds['plain PNG loader']:.2f}")
    for name, values in figures.get("settings", {}).items():
        print(f"{name:24} {1000 * statistics.median(values):8.2f} ms a step")
    for name, size in figures.get("memory", {}).items():
        print(f"{name:24} {size / 2**30:8.2f} GB")


if __name__ == "__main__":
    main()
