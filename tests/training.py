"""Requests for the smallest runs of the real trainer, and what a run has written."""

import json
from pathlib import Path
from typing import Any

from salakseg.train.start import Request

_TINY: dict[str, Any] = {
    "network__encoder": "timm-tf_efficientnet_lite0",
    "network__encoder_weights": "none",
    "data__crop": 32,
    "data__workers": 0,
    "data__gap": 0,
    "data__batch_size": 2,
    "augment__multi_scale": False,
    "evaluation__patience": 100,
}


def quiet(*_: object) -> None:
    pass


def tiny_request(data: Path, run: Path, iterations: int, start: int, every: int, **settings: Any) -> Request:
    """A run of ``v3`` on the CPU.

    Args:
        data: Its patches.
        run: Its folder.
        iterations: Steps.
        start: First step with pseudo-labels.
        every: Steps from one evaluation to the next.
        settings: Others, as ``section__name``.
    """
    own = {"schedule__iterations": iterations, "selftraining__start": start, "evaluation__every": every}
    changes: dict[str, dict[str, Any]] = {}
    for key, value in (_TINY | {"schedule__warmup": min(2, iterations - 1)} | own | settings).items():
        section, name = key.split("__")
        changes.setdefault(section, {})[name] = value
    return Request("v3", [changes], data, run.parent, run_folder=run, device="cpu")


def records(run: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """What a run has logged, of one kind or all."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if kind is None or line["kind"] == kind]
