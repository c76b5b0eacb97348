"""Where the results of a run lie, and whether they are those of the run that is asked for.

OUT/runs/ID.json                 the record of a finished run
OUT/weights/ID-best.safetensors  weights of the moving average at the best validation, ID-end at the last step
OUT/unfinished/ID/               a run on its way: log and state
OUT/logs/ID.log                  what it said
OUT/superseded/                  records of runs whose recipe has changed since
OUT/scores/parts-6-7.json        the final scoring
OUT/report/                      tables and pictures
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from salakseg.errors import DataError
from salakseg.train.recipe import Recipe

SCHEMA = "salakseg.selftraining-run"
ENDS = ("best", "end")
"""The two states of a run that are scored: the best on validation, and the last."""


@dataclass(frozen=True, slots=True)
class RunKey:
    """Which run it is.

    Attributes:
        method: Name of the contestant.
        seed: Its seed.
        budget: "cpu" or "gpu".
        iterations: Length that the table is made for; a method may take a multiple.
    """

    method: str
    seed: int
    budget: str
    iterations: int

    @property
    def id(self) -> str:
        """A name for files."""
        return f"{self.method}-s{self.seed}-{self.budget}-{self.iterations}"


@dataclass(frozen=True, slots=True)
class Store:
    """The folder of results.

    Attributes:
        out: The folder.
    """

    out: Path

    def record(self, key_id: str) -> Path:
        """The record of a run."""
        return self.out / "runs" / f"{key_id}.json"

    def weights(self, key_id: str, end: str) -> Path:
        """Weights of a run, of one of `ENDS`."""
        return self.out / "weights" / f"{key_id}-{end}.safetensors"

    def work(self, key_id: str) -> Path:
        """Folder of a run on its way."""
        return self.out / "unfinished" / key_id

    def log(self, key_id: str) -> Path:
        """What a run said."""
        return self.out / "logs" / f"{key_id}.log"

    def scores(self, parts: list[int]) -> Path:
        """The final scoring on some parts."""
        return self.out / "scores" / f"parts-{'-'.join(map(str, parts))}.json"

    def timing(self, budget: str) -> Path:
        """Seconds of a step, measured alternately."""
        return self.out / f"timing-{budget}.json"

    def records(self) -> list[dict[str, Any]]:
        """All finished runs, sorted by their names."""
        return [read_json(path) for path in sorted((self.out / "runs").glob("*.json"))]

    def is_finished(self, key_id: str, digest: str) -> bool:
        """Whether a run is there, of this very recipe; one of another recipe is put aside."""
        path = self.record(key_id)
        if not path.is_file():
            return False
        record = read_json(path)
        old = stored_digest(record["recipe"], record["all_labelled"])
        if old == digest:
            return True
        aside = self.out / "superseded" / f"{key_id}-{old[:8]}.json"
        aside.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, aside)
        return False


def digest_of(recipe: Recipe, all_labelled: bool) -> str:
    """What a run's outcome depends on; where the encoder's ImageNet weights lie is left out."""
    plain = recipe.model_dump(mode="json")
    if plain["network"]["encoder_weights"] != "none":
        plain["network"]["encoder_weights"] = "imagenet"
    text = json.dumps([plain, all_labelled], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def stored_digest(plain: Mapping[str, Any], all_labelled: bool) -> str:
    """The same of a recipe as it was stored: settings that came later have their defaults in what ran before them."""
    try:
        return digest_of(Recipe.model_validate(plain), all_labelled)
    except ValidationError:
        return "unknown"


def read_json(path: Path) -> dict[str, Any]:
    """Reads an object.

    Raises:
        DataError: It is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); remove it, and the run is done anew.") from error
    return dict(content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes an object; the file appears under its name only when whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    temporary.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
    os.replace(temporary, path)
