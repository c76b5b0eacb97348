"""The final scoring: stored weights on images that no run has seen, each image once.

Only this file opens test masks. What it finds goes into a file of its own, and nothing that trains or tunes reads it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from contest.methods import MAIN, TUNED, TUNING
from contest.protocol import CLASSES, Picture, pictures_of, read_labelled
from contest.records import ENDS, Store, read_json, write_json
from contest.settings import BUDGETS
from contest.windows import label_map
from contest.worker import sha256_of
from salakseg.classes import ClassMap
from salakseg.errors import DataError
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.network.config import NetworkConfig
from salakseg.network.device import pick_device
from salakseg.network.model import Segmenter


def score_all(
    source: Path,
    parts: Sequence[int],
    store: Store,
    device_name: str,
    say: Callable[[str], None],
    only: Sequence[str] | None = None,
) -> None:
    """Scores every finished run that is not in the file of scores yet, or whose weights have changed.

    Args:
        source: Folder with `Tile N/images/image_part_00P.jpg` and the masks beside them, at full size.
        parts: Which parts P of every scene.
        store: The folder of results.
        device_name: "auto", "cpu" or "cuda".
        say: Called with a line worth reading.
        only: Names of the runs to score; None means all of the table's methods. What is still being chosen, such as a
            variant of `TUNING`, is scored by nobody.

    Raises:
        DataError: Images, masks or weights are missing.
    """
    path = store.scores(list(parts))
    scores: dict[str, Any] = read_json(path) if path.is_file() else {"parts": list(parts), "runs": {}}
    records = store.records()
    if not records:
        raise DataError(f"{store.out} holds no finished run; train first, or name another --out.")
    if only is None:
        records = [record for record in records if record["key"]["method"] in {*MAIN, TUNED}]
    else:
        records = [record for record in records if run_id(record) in only]
        tuned = [run_id(record) for record in records if record["key"]["method"] in TUNING]
        if tuned:
            raise DataError(f"{tuned[0]} is there to be chosen from on validation; leave it out of what is scored.")
        for missing in sorted(set(only) - set(map(run_id, records))):
            say(f"attention: {missing} is not finished and not scored")
    open_runs = [record for record in records if not _is_scored(record, scores)]
    say(f"{len(records) - len(open_runs)} of {len(records)} runs are scored already")
    device = torch.device(pick_device(device_name))
    pictures: dict[int, list[Picture]] = {}
    for record in open_runs:
        budget = BUDGETS[record["key"]["budget"]]
        if budget.reduce not in pictures:
            pictures[budget.reduce] = read_parts(source, parts, _class_map(record), budget.reduce)
        entry: dict[str, Any] = {"weights": record["weights"], "key": record["key"]}
        for end in ENDS:
            weights = store.weights(run_id(record), end)
            if not weights.is_file() or sha256_of(weights) != record["weights"][end]:
                say(f"attention: {weights} is missing or of another run; {run_id(record)} is not scored")
                break
            model = load_model(weights, record, device)
            entry[end] = {p.name: confusion(model, p, budget.window, device) for p in pictures[budget.reduce]}
        else:
            if path.is_file():  # another call may have scored other runs meanwhile
                scores = read_json(path)
            scores["runs"][run_id(record)] = entry
            write_json(path, scores)
            say(f"scored {run_id(record)}")


def read_parts(source: Path, parts: Sequence[int], class_map: ClassMap, reduce: int) -> list[Picture]:
    """The images of some parts with their labels.

    Raises:
        DataError: There are none.
    """
    own = source / CLASSES
    if own.is_file() and not ClassMap.from_csv(own).same_as(class_map):
        raise DataError(f"{own} names other classes than the runs were trained with.")
    chosen = [path for path, part in pictures_of(source) if part in parts]
    if not chosen:
        raise DataError(f"{source} has no image of the parts {', '.join(map(str, parts))}.")
    return [read_labelled(path, class_map, reduce) for path in chosen]


def load_model(weights: Path, record: dict[str, Any], device: torch.device) -> Segmenter:
    """The network of a run."""
    network = NetworkConfig.model_validate(record["recipe"]["network"])
    model = Segmenter(network, len(record["classes"]), load_weights=False)
    model.load_state_dict(
        {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in load_file(weights).items()}
    )
    return model.to(device).eval()


def confusion(model: Segmenter, picture: Picture, side: int, device: torch.device) -> list[list[int]]:
    """Confusion matrix of an image, rows = truth."""
    assert picture.label_HW is not None
    matrix = ConfusionMatrix(_classes(model))
    matrix.update(picture.label_HW, label_map(model, picture, side, device))
    return [[int(count) for count in row] for row in matrix.counts]


def run_id(record: dict[str, Any]) -> str:
    """The name of a run for files."""
    key = record["key"]
    return f"{key['method']}-s{key['seed']}-{key['budget']}-{key['iterations']}"


def _classes(model: Segmenter) -> int:
    last = [parameter for name, parameter in model.heads[0].named_parameters() if name.endswith("bias")][-1]
    return len(last)


def _class_map(record: dict[str, Any]) -> ClassMap:
    return ClassMap.from_records(record["classes"], "the run's record")


def _is_scored(record: dict[str, Any], scores: dict[str, Any]) -> bool:
    entry = scores["runs"].get(run_id(record))
    return entry is not None and entry["weights"] == record["weights"]
