"""What ``salakseg train --dry-run`` shows."""

from typing import TYPE_CHECKING

from salakseg.cli.console import progress_bar, say, stderr, stdout
from salakseg.cli.tables import duration, table

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
    stderr.print(_counts(counts, trainer.data.class_map.names))
    with progress_bar("measuring", "steps") as progress:
        found = estimate(trainer, progress)
    for line in _lines(found):
        say(line)


def _counts(counts: "list[PartCount]", names: "tuple[str, ...]") -> object:
    rows = []
    for count in counts:
        pixels = count.pixels_K
        total = 0 if pixels is None else int(pixels.sum())
        shares = ["-"] * len(names) if pixels is None or not total else [f"{100 * n / total:.1f}" for n in pixels]
        rows.append([count.role.value, f"{count.patches:,}", "-" if pixels is None else f"{total:,}", *shares])
    columns = ("part", "patches", "labelled pixels", *(f"{name} %" for name in names))
    return table(columns, rows, left=("part",))


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
