"""Whether an exported file computes what the network computes, and whether what it loses can be borne.

Axes: B image, K class, C channel, H row, W column.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from salakseg.errors import ExportError, first_line
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.metrics import compute_metrics
from salakseg.export.settings import ExportSettings, Precision
from salakseg.export.tiles import Tile
from salakseg.network.heads import combine_heads
from salakseg.network.model import Segmenter, normalise
from salakseg.network.sessions import open_session
from salakseg.network.variant import Variant

MIN_AGREEMENT: dict[Precision, float] = {"fp32": 0.9999, "fp16": 0.999}
"""Least share of pixels with the same class; two right implementations differ only where two classes tie."""

MAX_DIFFERENCE = 1e-3
"""Largest difference of a probability in float32; in another order of summation it stays below 1e-4."""

MAX_MIOU_LOSS = 1.0
"""Points of mIoU without background that int8 may lose."""

MAX_CLASS_LOSS = 3.0
"""Points of IoU that int8 may lose in any one class."""

BATCH = 2
"""Tiles a batch, so that the dynamic batch is tried as well."""

Channels = tuple[float, float, float]

Output = NDArray[np.float32] | NDArray[np.uint8]
"""Probabilities [B, K, H, W] or class ids [B, H, W]."""


@dataclass(frozen=True, slots=True, eq=False)
class Loss:
    """IoU of network and file on the same labelled pixels; classes without any are left out.

    Attributes:
        names: The classes that have labelled pixels.
        ids: Their ids.
        before: IoU of each by the network, 0 to 1, float64.
        after: The same by the file.
        unjudged: The classes that have none.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    unjudged: tuple[str, ...] = ()

    @property
    def miou(self) -> tuple[float, float]:
        """Mean IoU without background of network and file; with it if there is nothing else."""
        counted = np.array([own != 0 for own in self.ids])
        counted |= not counted.any()
        return float(self.before[counted].mean()), float(self.after[counted].mean())

    @property
    def points(self) -> float:
        """Points of mean IoU that the file loses; below 0 for a gain."""
        before, after = self.miou
        return 100 * (before - after)

    @property
    def worst(self) -> tuple[str, float]:
        """The class that loses most, and how many points."""
        lost = 100 * (self.before - self.after)
        place = int(lost.argmax())
        return self.names[place], float(lost[place])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, classes by their ids."""
        return {
            "miou_without_background": list(self.miou),
            "iou": {str(k): [float(b), float(a)] for k, b, a in zip(self.ids, self.before, self.after, strict=True)},
            "unjudged": list(self.unjudged),
        }


@dataclass(frozen=True, slots=True)
class Parity:
    """How far a file agrees with the network.

    Attributes:
        tiles: Number of tiles compared.
        max_difference: Largest difference of a probability, 0 to 1; 0 for a file that gives classes only, infinite for
            one whose answers are no numbers or of another shape.
        agreement: Share of pixels with the same most probable class, 0 to 1.
        votes: Whether the probabilities are shares of votes, which jump where one head's two best classes tie.
        loss: IoU before and after, where there were labels.
    """

    tiles: int
    max_difference: float
    agreement: float
    votes: bool = False
    loss: Loss | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values; ``loss`` holds pairs of network and file, and None where there were no labels."""
        return {
            "tiles": self.tiles,
            "agreement": self.agreement,
            "max_difference": self.max_difference,
            "loss": None if self.loss is None else self.loss.to_dict(),
        }

    def objection(self, precision: Precision) -> str | None:
        """Why the file may not be used in place of the network, with figures; None if it may."""
        if np.isinf(self.max_difference):
            return "its answers are no numbers, or of another shape than the network's"
        least = MIN_AGREEMENT.get(precision)
        if least is not None:
            if not self.agreement >= least:
                return (
                    f"it agrees with torch on {100 * self.agreement:.3f} % of the pixels only, {100 * least:g} % are "
                    f"asked (largest difference {self.max_difference:.2g})"
                )
            if precision == "fp32" and not self.votes and not self.max_difference <= MAX_DIFFERENCE:
                return f"a probability differs by {self.max_difference:.2g} from torch's, {MAX_DIFFERENCE:g} is allowed"
            return None
        if self.loss is None:
            return "there are no labels to measure its loss by"
        (name, worst), points = self.loss.worst, self.loss.points
        if not points <= MAX_MIOU_LOSS:
            return f"it loses {points:.2f} points of mIoU without background, {MAX_MIOU_LOSS:g} may be lost"
        if not worst <= MAX_CLASS_LOSS:
            return f"class {name} loses {worst:.2f} points of IoU, {MAX_CLASS_LOSS:g} may be lost"
        return None


class FileRunner:
    """An exported file on this machine's CPU.

    Args:
        path: The ONNX file.
        settings: It was exported with; the precision plays no part.
        mean: Mean of red, green and blue on a scale of 0 to 1.
        std: Standard deviation of the same.
    """

    def __init__(self, path: Path, settings: ExportSettings, mean: Channels, std: Channels) -> None:
        self._session = open_session(path)
        self._input = self._session.get_inputs()[0].name
        self._settings, self._mean, self._std = settings, mean, std

    def prepare(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The file's input from uint8 images."""
        return file_input(image_BCHW, self._settings, self._mean, self._std)

    def run(self, prepared_BCHW: NDArray[np.float32]) -> tuple[Output, NDArray[np.float32] | None]:
        """The file's first output, and its second one, the confidence [B, H, W], if it has one.

        Raises:
            ExportError: ONNX Runtime cannot compute it.
        """
        try:
            found = self._session.run(None, {self._input: prepared_BCHW})
        # ONNX Runtime's exceptions share no base but Exception
        except Exception as error:
            raise ExportError(
                f"ONNX Runtime cannot run the exported network on {prepared_BCHW.shape[2]} x {prepared_BCHW.shape[3]} "
                f"pixels ({first_line(error)}); export it with a static --size."
            ) from error
        return found[0], found[1] if len(found) > 1 else None


def file_input(
    image_BCHW: NDArray[np.uint8], settings: ExportSettings, mean: Channels, std: Channels
) -> NDArray[np.float32]:
    """What a file takes for uint8 images [B, 3, H, W], float32: 0 to 255 if it normalises itself, else normalised."""
    image = torch.from_numpy(image_BCHW).float()
    wanted: NDArray[np.float32] = image.numpy()
    if settings.normalisation == "metadata":
        wanted = normalise(image / 255, mean, std).numpy()
    return wanted


class _Count:
    """What is counted for one file."""

    def __init__(self, classes: int) -> None:
        self.matrix = ConfusionMatrix(classes)
        self.difference, self.same, self.pixels = 0.0, 0, 0

    def add(
        self,
        found: Output,
        confidence_BHW: NDArray[np.float32] | None,
        prob_BKHW: NDArray[np.float32],
        label_BHW: NDArray[np.uint8],
    ) -> None:
        expected_BHW = prob_BKHW.argmax(axis=1)
        self.pixels += expected_BHW.size
        classes_BHW = found.argmax(axis=1) if found.ndim == 4 else found
        if classes_BHW.shape != expected_BHW.shape or not np.isfinite(found.astype(np.float32)).all():
            self.difference = float("inf")
            return
        if found.ndim == 4:
            self.difference = max(self.difference, float(np.abs(found - prob_BKHW).max()))
        if confidence_BHW is not None:
            off = np.abs(confidence_BHW - prob_BKHW.max(axis=1)).max()
            self.difference = max(self.difference, float(off) if np.isfinite(off) else float("inf"))
        self.same += int((classes_BHW == expected_BHW).sum())
        self.matrix.update(label_BHW, classes_BHW.astype(np.uint8))


def measure(
    network: Segmenter,
    variant: Variant,
    runners: Sequence[FileRunner],
    tiles: Sequence[Tile],
    names: Sequence[str],
    channels: tuple[Channels, Channels],
    progress: Callable[[int, int], None] | None = None,
) -> list[Parity]:
    """Runs a network, as it was trained, and files made from it over the same tiles.

    Args:
        network: In evaluation mode on the CPU.
        variant: How its heads are combined.
        runners: The files.
        tiles: Tiles that the files take; neighbours of one size go in batches of two.
        names: Of the classes.
        channels: Mean and standard deviation of red, green and blue on a scale of 0 to 1.
        progress: Called with tiles done and to do.
    """
    reference, counts = ConfusionMatrix(len(names)), [_Count(len(names)) for _ in runners]
    done = 0
    for batch in _batches(tiles):
        image_BCHW = np.stack([tile.image_CHW for tile in batch])
        label_BHW = np.stack([tile.label_HW for tile in batch])
        with torch.inference_mode():
            logits = network(normalise(torch.from_numpy(image_BCHW).float() / 255, *channels))
            prob_BKHW = combine_heads(logits, variant.heads, variant.temperature).numpy()
        reference.update(label_BHW, prob_BKHW.argmax(axis=1))
        for runner, count in zip(runners, counts, strict=True):
            count.add(*runner.run(runner.prepare(image_BCHW)), prob_BKHW, label_BHW)
        done += len(batch)
        if progress is not None:
            progress(done, len(tiles))
    return [
        Parity(len(tiles), c.difference, c.same / c.pixels, variant.votes, _loss(reference, c.matrix, names))
        for c in counts
    ]


def _batches(tiles: Sequence[Tile]) -> Iterator[list[Tile]]:
    for _, same in groupby(tiles, key=lambda tile: tile.label_HW.shape):
        group = list(same)
        yield from (group[start : start + BATCH] for start in range(0, len(group), BATCH))


def _loss(before: ConfusionMatrix, after: ConfusionMatrix, names: Sequence[str]) -> Loss | None:
    ids = tuple(int(k) for k in np.flatnonzero(before.counts.sum(axis=1)))
    if not ids or before.counts.sum() != after.counts.sum():
        return None
    iou = [compute_metrics(matrix).iou[list(ids)] for matrix in (before, after)]
    unjudged = tuple(name for k, name in enumerate(names) if k not in ids)
    return Loss(tuple(names[k] for k in ids), ids, iou[0], iou[1], unjudged)
