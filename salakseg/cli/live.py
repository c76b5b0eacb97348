"""The live view of a training run: a panel on a terminal, lines elsewhere.

All but the count of the steps is read from the run's log, which the trainer writes anyway.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.live import Live

from salakseg.cli.console import progress_bar, stderr

if TYPE_CHECKING:
    from salakseg.classes import ClassMap

_EVERY = 0.25  # seconds between two pictures
_NOTE_EVERY = 5.0


@contextmanager
def live_view(metrics: Path, class_map: "ClassMap", title: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a run while it goes; what is said meanwhile stands above.

    Args:
        metrics: The run's log; it need not be there yet.
        class_map: Names and colours.
        title: What stands at the top.

    Yields:
        A function of steps done and to do.
    """
    log = LogTail(metrics)
    if not stderr.is_terminal:
        with progress_bar("training", "steps") as progress:
            yield lambda done, total: progress(done, total, log.note())
        return
    from salakseg.cli.live_panel import Glance, panel

    glance = Glance(class_map, title)
    shown = -_EVERY

    with Live(console=stderr, auto_refresh=False) as live:

        def show(done: int, total: int) -> None:
            nonlocal shown
            now = time.monotonic()
            glance.count(done, total, now)
            if now - shown < _EVERY and done < total:
                return
            shown = now
            glance.take(log.new_records())
            live.update(panel(glance), refresh=True)

        yield show


class LogTail:
    """Reads what a log has gained since it was last looked at.

    Args:
        path: The log, which may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._note = ""
        self._noted = -_NOTE_EVERY

    def new_records(self) -> list[dict[str, Any]]:
        """The records since the last call; a line that is not whole yet comes with the next one."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                content = file.read()
        except OSError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        found: list[dict[str, Any]] = []
        for line in whole.decode("utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and {"kind", "iteration"} <= record.keys():
                found.append(record)
        return found

    def note(self) -> str:
        """The newest loss in a few words, for a line; looked for now and then only."""
        now = time.monotonic()
        if now - self._noted < _NOTE_EVERY:
            return self._note
        self._noted = now
        for record in self.new_records():
            if record["kind"] == "train" and isinstance(record.get("loss"), float):
                self._note = f"loss {record['loss']:.3f}, learning rate {record.get('learning_rate', 0):.2g}"
        return self._note
