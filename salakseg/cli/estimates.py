"""What ``salakseg train --dry-run`` shows."""

from typing import TYPE_CHECKING

from rich.table import Table

from salakseg.cli.console import progress_bar, say, stderr, stdout
from salakseg.cli.tables import duration, show, table

if TYPE_CHECKING:
    from salakseg.train.estimate import Estimate, PartCount
    from salakseg.train.loop import Trainer
    from salakseg.train.recipe import Resolved


def show_estimate(resolved: "Resolved", trainer: "Trainer") -> None:
    """Prints the recipe to stdout, and data, steps, time and memory to stderr; the trainer is of no use afterwards."""
    from salakseg.train.estimate import count_data, estimate
    from salakseg.train.explain import explain

    stdout.print(explain(resolved), markup=False, soft_wrap=True, end="")
    with progress_bar("reading masks of held-out parts", "masks") as progress:
        counts = count_data(trainer.data, progress)
    show(stderr, _counts(counts, trainer.data.class_map.names))
    with progress_bar("measuring", "steps") as progress:
        found = estimate(trainer, progress)
    for line in _lines(found):
        say(line)


def _counts(counts: "list[PartCount]", names: "tuple[str, ...]") -> Table:
    """Parts side by side: patches, and percent of the labelled pixels by class."""
    totals = [0 if count.pixels_K is None else int(count.pixels_K.sum()) for count in counts]
    rows = [["patches", *(f"{count.patches:,}" for count in counts)]]
    rows.append(["labelled pixels", *(f"{total:,}" if total else "-" for total in totals)])
    for k, name in enumerate(names):
        shares = [
            f"{100 * count.pixels_K[k] / total:.1f} %" if count.pixels_K is not None and total else "-"
            for count, total in zip(counts, totals, strict=True)
        ]
        rows.append([name, *shares])
    return table(("", *(count.role.value for count in counts)), rows, left=("",))


def _lines(found: "Estimate") -> list[str]:
    step = f"{found.step_seconds:.3g} s a step"
    if found.large_share:
        step += f", {found.large_step_seconds:.3g} s every {round(1 / found.large_share)}th, at the largest size"
    memory = "unknown" if found.memory_bytes is None else f"{found.memory_bytes / 2**30:.2f} GiB"
    return [
        f"time: about {duration(found.total_seconds)} for all {found.iterations:,} steps ({step}) and "
        f"{found.evaluations:,} evaluations ({found.evaluation_seconds:.3g} s each), measured on {found.device}; early "
        "stopping may end it sooner",
        f"memory: {memory} ({found.memory_of})",
        "nothing was written",
    ]
