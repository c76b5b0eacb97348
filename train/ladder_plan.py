"""What is asked of a ladder of phases, and its file ``ladder.json``."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from salakseg.errors import RecipeError, TrainingError
from salakseg.train.effect import idle_settings, is_excused
from salakseg.train.keys import merge, without
from salakseg.train.recipe import PHASES, Resolved, resolve_unjudged, spell
from salakseg.train.settings import Section
from salakseg.train.start import Request

FILE = "ladder.json"
"""The file that makes a folder a ladder."""

RUNGS = tuple(PHASES[number] for number in (1, 2, 3))
"""Recipes of the rungs, from the first on."""

_KEY = "ladder"
_SCHEMA = 1

Say = Callable[[str], None]


class LadderConfig(Section):
    """When the ladder climbs on: where the rung's best mIoU without background stays below a figure."""

    phase2_below: float = Field(default=0.68, ge=0.0, le=1.0)
    """Phase 2 follows a phase 1 below this."""
    phase3_below: float = Field(default=0.70, ge=0.0, le=1.0)
    """Phase 3 follows a phase 2 below this."""

    def limit(self, recipe: str) -> float | None:
        """What the rung must reach for the ladder to end with it; None for the last."""
        return {RUNGS[0]: self.phase2_below, RUNGS[1]: self.phase3_below}.get(recipe)


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked of a ladder.

    Attributes:
        config: When it climbs on.
        go_on: Whether a rung starts from the best weights of the one before, not from those of the encoder.
        changes: Settings on top of the recipe of each rung: those that count there.
        request: What holds for all rungs; recipe, changes and folder are the rung's.
    """

    config: LadderConfig
    go_on: bool
    changes: Mapping[str, Mapping[str, Any]]
    request: Request

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `ladder.json`, paths as they stand on this machine."""
        request = self.request
        paths = {name: getattr(request, name) for name in ("data_root", "class_mapping", "splits", "init")}
        return {
            "schema": _SCHEMA,
            "ladder": self.config.model_dump(),
            "continue": self.go_on,
            "changes": json.loads(json.dumps(self.changes)),
            **{name: None if path is None else str(Path(path).resolve()) for name, path in paths.items()},
            "num_classes": request.num_classes,
            "gsd_m": request.gsd_m,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], runs: Path) -> "Plan":
        """The reverse of `to_dict`.

        Raises:
            ValueError: Something is missing or of another kind; also KeyError or TypeError.
        """
        if values["schema"] != _SCHEMA:
            raise ValueError(f"schema {values['schema']} is not {_SCHEMA}")

        def path(name: str) -> Path | None:
            return None if values[name] is None else Path(values[name])

        request = Request(
            recipe=RUNGS[0],
            changes=[],
            data_root=Path(values["data_root"]),
            runs=runs,
            class_mapping=path("class_mapping"),
            num_classes=values["num_classes"],
            splits=path("splits"),
            gsd_m=values["gsd_m"],
            init=path("init"),
        )
        changes = {rung: dict(values["changes"][rung]) for rung in RUNGS}
        return cls(LadderConfig.model_validate(values["ladder"]), bool(values["continue"]), changes, request)


def make_plan(
    request: Request, changes: Sequence[Mapping[str, Any]], project: Mapping[str, Any], go_on: bool, say: Say
) -> Plan:
    """Looks at what was asked before anything is trained.

    Args:
        request: What holds for all rungs.
        changes: Settings that were given for this ladder, `ladder.*` among them.
        project: Settings of the project file.
        go_on: Whether a rung starts from the best weights of the one before.
        say: Told what of the project file counts in no rung.

    Raises:
        RecipeError: A setting that is wrong in some rung, or without effect in all of them.
    """
    table: dict[str, Any] = {}
    for change in changes:
        table = merge(table, change)
    config = _config(merge({_KEY: project.get(_KEY, {})}, {_KEY: table.pop(_KEY, {})})[_KEY])
    project = without(project, [_KEY])
    resolved = {rung: resolve_unjudged(rung, [table], project) for rung in RUNGS}
    _refuse_idle_everywhere(resolved, say)
    own = {rung: without(merge(project, table), _idle_keys(found)) for rung, found in resolved.items()}
    return Plan(config, go_on, own, request)


def read_plan(folder: Path) -> Plan:
    """What was asked of a ladder.

    Raises:
        TrainingError: The file is damaged.
    """
    try:
        return Plan.from_dict(read_json(folder / FILE), folder.parent)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrainingError(
            f"{folder / FILE} is damaged or of another version; its rungs are runs that can be resumed one by one."
        ) from error


def read_json(path: Path) -> Any:  # noqa: ANN401  # whatever is in it
    """The content of a JSON file; None where there is none or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _config(table: Mapping[str, Any]) -> LadderConfig:
    try:
        return LadderConfig.model_validate(table, strict=True)
    except ValidationError as error:
        raise RecipeError(f"{_KEY}: {spell(error)}") from error


def _refuse_idle_everywhere(resolved: Mapping[str, Resolved], say: Say) -> None:
    idle = [{one.key: one for one in idle_settings(found)} for found in resolved.values()]
    everywhere = [one for key, one in idle[0].items() if all(key in other for other in idle[1:])]
    if wrong := [one for one in everywhere if not is_excused(one)]:
        raise RecipeError(
            f"Without effect in every rung: {'; '.join(one.text for one in wrong)}. Leave out what changes nothing."
        )
    if everywhere:
        say(f"salakseg.toml: without effect in every rung: {', '.join(one.key for one in everywhere)}")


def _idle_keys(resolved: Resolved) -> list[str]:
    return [one.key for one in idle_settings(resolved)]
