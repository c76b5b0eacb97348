"""One run, in a process of its own: `selftraining.py --worker JOB.json`."""

import hashlib
import json
import platform
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from contest.protocol import ContestData, load_data
from contest.records import ENDS, SCHEMA, RunKey, Store, digest_of, stored_digest, write_json
from contest.settings import BUDGETS
from contest.watch import ContestTrainer, Watch, save_weights
from salakseg.errors import CheckpointError
from salakseg.network.checkpoint import Checkpoint, package_versions
from salakseg.network.device import pick_device
from salakseg.train.environment import git_state
from salakseg.train.keeping import load_newest
from salakseg.train.parallel import make_fabric
from salakseg.train.recipe import Recipe
from salakseg.train.run import RunFolder
from salakseg.train.signals import Interrupted
from salakseg.train.state import data_digest, is_same_data, restore

SPENT = "seconds.txt"
"""File of an unfinished run: what its earlier processes took."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is told.

    Attributes:
        key: Which run.
        recipe: Its resolved recipe as plain values.
        all_labelled: Whether all training images are labelled.
        data: The prepared folder.
        out: The folder of results.
        device: "auto", "cpu" or "cuda".
        jobs: Workers side by side, for the record.
        resumable: Whether the state is written at evaluations.
    """

    key: RunKey
    recipe: dict[str, Any]
    all_labelled: bool
    data: Path
    out: Path
    device: str
    jobs: int
    resumable: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"data": str(self.data), "out": str(self.out)}

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> "Job":
        """The reverse of `to_json`."""
        paths = {"data": Path(plain["data"]), "out": Path(plain["out"])}
        return cls(**(plain | paths | {"key": RunKey(**plain["key"])}))


def work(job_file: Path) -> int:
    """Does a job; returns the exit status: 0 finished, 130 interrupted with its state kept where it is resumable."""
    job = Job.from_json(json.loads(job_file.read_text(encoding="utf-8")))
    started = time.perf_counter()
    trainer = _trainer(job)
    spent = trainer.run_folder.path / SPENT
    before = float(spent.read_text(encoding="utf-8")) if spent.is_file() else 0.0
    try:
        trainer.run(lambda done, total: None)
    except Interrupted:
        spent.write_text(str(before + time.perf_counter() - started), encoding="utf-8")
        return 130
    _finish(job, trainer, before + time.perf_counter() - started)
    return 0


def _trainer(job: Job) -> ContestTrainer:
    recipe = Recipe.model_validate(job.recipe)
    budget = BUDGETS[job.key.budget]
    data = load_data(job.data, job.all_labelled, budget)
    folder = RunFolder(Store(job.out).work(job.key.id))
    fabric = make_fabric(job.device, recipe)
    checkpoint = _begun(job, recipe, data, folder)
    if checkpoint is None:
        shutil.rmtree(folder.path, ignore_errors=True)
        folder.create(recipe, data.training, fabric.device)
    trainer = ContestTrainer(recipe, data.training, folder, fabric, _say, load_weights=checkpoint is None)
    trainer.resumable = job.resumable
    if not job.resumable:
        trainer.keeper.saved = 0  # or the state would be written before the first step
    trainer.validation = Watch(trainer, data, budget.window, folder.path / "best.safetensors", _say)
    if checkpoint is not None:
        restore(trainer, checkpoint)
        _say(f"going on after step {trainer.iteration}")
    return trainer


def _begun(job: Job, recipe: Recipe, data: ContestData, folder: RunFolder) -> Checkpoint | None:
    """The state of an unfinished run, if it is of this very recipe and of these very images."""
    if not (folder.last.is_file() or folder.previous.is_file()):
        return None
    try:
        checkpoint = load_newest(folder, _say)
    except CheckpointError as error:
        _say(f"attention: {error} The run begins anew")
        return None
    same_recipe = stored_digest(checkpoint.recipe, job.all_labelled) == digest_of(recipe, job.all_labelled)
    if same_recipe and is_same_data(data_digest(data.training), checkpoint.training["data"]):
        return checkpoint
    _say(
        f"attention: {checkpoint.iteration} steps of another {'set of images' if same_recipe else 'recipe'} are dropped"
    )
    return None


def _finish(job: Job, trainer: ContestTrainer, seconds: float) -> None:
    """Copies the weights to their place and writes the record last: it stands for the whole run."""
    store = Store(job.out)
    own = trainer.run_folder.path
    store.weights(job.key.id, "end").parent.mkdir(parents=True, exist_ok=True)
    save_weights(trainer.ema.model, store.weights(job.key.id, "end"))
    shutil.copy(own / "best.safetensors", store.weights(job.key.id, "best"))
    history = trainer.validation.history
    best = max(history, key=lambda record: record["miou_without_background"])
    write_json(
        store.record(job.key.id),
        {
            "schema": SCHEMA,
            "key": asdict(job.key),
            "recipe": trainer.recipe.model_dump(mode="json"),
            "all_labelled": job.all_labelled,
            "classes": trainer.data.class_map.to_records(),
            "class_pixels": trainer.data.class_pixels.tolist(),
            "environment": _environment(job),
            "seconds": seconds,
            "curve": [{k: v for k, v in record.items() if k != "images"} for record in history],
            "validation": {
                "best": {"iteration": best["iteration"], "images": best["images"]},
                "end": {"iteration": history[-1]["iteration"], "images": history[-1]["images"]},
            },
            "train_log": _logged(trainer.run_folder.metrics, "train"),
            "events": _logged(trainer.run_folder.metrics, "event"),
            "weights": {end: sha256_of(store.weights(job.key.id, end)) for end in ENDS},
        },
    )
    shutil.rmtree(own, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """Digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _environment(job: Job) -> dict[str, Any]:
    device = pick_device(job.device)
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return {
        "device": device,
        "device_name": name,
        "jobs": job.jobs,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": package_versions(),
        "git": git_state(Path(__file__).parent, Path(__file__).name),
    }


def _logged(path: Path, kind: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in record.items() if k != "kind"} for record in records if record["kind"] == kind]


def _say(line: str) -> None:
    print(line, flush=True)
