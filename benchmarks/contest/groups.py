"""Finished runs of one budget and one length, with all images that they were scored on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from contest.figures import Result
from contest.methods import MAIN, TUNED
from contest.records import Store, read_json, stored_digest
from contest.score import run_id
from contest.settings import BUDGETS
from salakseg.errors import DataError

ORDER = [*MAIN, TUNED]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Runs that are compared with each other.

    Attributes:
        budget: "cpu" or "gpu".
        iterations: Their length.
        records: Their records.
        scores: For each scored set of images, such as ``parts-6-7``, the entry of each run by its id.
        timing: Seconds of a step of some methods, measured alternately; empty where that was not done.
    """

    budget: str
    iterations: int
    records: tuple[dict[str, Any], ...]
    scores: dict[str, dict[str, Any]]
    timing: dict[str, float]

    @property
    def name(self) -> str:
        """For files."""
        return f"{self.budget}-{self.iterations}"

    @property
    def is_table(self) -> bool:
        """Whether these runs have the length of the table, for which the bars are."""
        return self.iterations == BUDGETS[self.budget].iterations

    @property
    def title(self) -> str:
        """For people."""
        return f"Budget {self.budget}, {self.iterations:,} iterations"

    @property
    def image_sets(self) -> list[str]:
        """What the runs were scored on, the tests first."""
        return [*(name for name, entries in self.scores.items() if self._any(entries)), "validation"]

    @property
    def methods(self) -> list[str]:
        """Methods that have a run, in the order of the table; those of the command line last."""
        found = dict.fromkeys(record["key"]["method"] for record in self.records)
        return sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))

    def of(self, method: str) -> list[dict[str, Any]]:
        """Records of a method by seed."""
        return sorted(
            (record for record in self.records if record["key"]["method"] == method),
            key=lambda record: int(record["key"]["seed"]),
        )

    def results(self, method: str, images: str, end: str) -> list[Result]:
        """A method's runs on a set of images in one of the states of `ENDS`, but for those that were not scored."""
        found = []
        for record in self.of(method):
            if images == "validation":
                matrices = record["validation"][end]["images"]
            else:
                entry = self.scores[images].get(run_id(record))
                if entry is None or entry["weights"] != record["weights"]:
                    continue
                matrices = entry[end]
            found.append(Result.of(method, record["key"]["seed"], matrices))
        return found

    def _any(self, entries: dict[str, Any]) -> bool:
        return any(run_id(record) in entries for record in self.records)


def groups_of(store: Store, test: bool) -> list[Group]:
    """All finished runs, grouped, with or without the scores of test images; the group of the table first.

    Raises:
        DataError: Runs of one method and one length were not done by one recipe.
    """
    files = sorted((store.out / "scores").glob("*.json")) if test else []
    scores = {path.stem: read_json(path)["runs"] for path in files}
    grouped: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for record in store.records():
        grouped.setdefault((record["key"]["budget"], record["key"]["iterations"]), []).append(record)
    for records in grouped.values():
        _check_recipes(records)
    timing = {budget: read_json(path)["seconds"] for budget in BUDGETS if (path := store.timing(budget)).is_file()}
    groups = [
        Group(budget, length, tuple(records), scores, timing.get(budget, {}))
        for (budget, length), records in grouped.items()
    ]
    return sorted(groups, key=lambda group: (not group.is_table, -len(group.records)))


def _check_recipes(records: Sequence[dict[str, Any]]) -> None:
    first: dict[str, tuple[str, str]] = {}
    for record in records:
        digest = stored_digest(record["recipe"] | {"seed": 0}, record["all_labelled"])
        known, other = first.setdefault(record["key"]["method"], (digest, run_id(record)))
        if digest != known:
            raise DataError(f"{run_id(record)} and {other} are runs of different recipes; do the older one anew.")
