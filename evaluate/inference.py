"""Labelled patches as batches, and running a network over them whole and unaugmented.

Axes: B image, N head, K class, C channel, H row, W column.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from salakseg.classes import ClassMap
from salakseg.data.ahead import read_ahead
from salakseg.data.patches import Patch, PatchIndex
from salakseg.data.reading import read_patch
from salakseg.errors import DataError, UnreadableError
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.network.config import IMAGENET_MEAN, IMAGENET_STD
from salakseg.network.heads import Logits, most_probable
from salakseg.network.model import normalise

Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Makes a progress bar from what is being done; it takes patches done and to do."""

_THREADS = 2  # decoding runs outside Python's lock, beside the network
_PIXELS = 16 * 256 * 256  # pixels in a batch: enough to keep a device busy, little enough for 4 GB
_LOGITS = 32 * 2**20  # logits in a batch: 128 MB, several times over while they are combined


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled patch in memory.

    Attributes:
        patch: Which one.
        image_HWC: uint8 [H, W, 3].
        label_HW: Class ids, uint8 [H, W], 255 where ignored.
    """

    patch: Patch
    image_HWC: NDArray[np.uint8]
    label_HW: NDArray[np.uint8]


def confusion_of(
    model: nn.Module,
    index: PatchIndex,
    patches: Sequence[Patch],
    class_map: ClassMap,
    device: torch.device,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    progress: Callable[[int, int], None] | None = None,
    on_unreadable: Callable[[Patch, UnreadableError], None] | None = None,
) -> ConfusionMatrix:
    """Confusion matrix of a network over labelled patches, by the mean of its heads' logits.

    Each patch is seen whole and at its own size; patches are batched only with others of the same size, so that the
    result does not depend on the batching.

    Args:
        model: A `Segmenter`; left in the mode that it came in.
        index: Where the patches lie.
        patches: Labelled patches.
        class_map: Classes to read masks by.
        device: Where the network lies.
        mean: Mean of red, green and blue on a scale of 0 to 1.
        std: Standard deviation of the same.
        progress: Called with patches done and to do.
        on_unreadable: Called with a patch that cannot be read, which is left out; None makes it an error.

    Raises:
        DataError: A picture or mask that cannot be used.
    """
    matrix = ConfusionMatrix(len(class_map))
    was_training = model.training
    model.eval()
    done = 0
    try:
        for batch in read_batches(index, patches, class_map, on_unreadable=on_unreadable):
            with torch.inference_mode():
                logits = model(to_input(batch, device, mean, std))
                prediction = most_probable(logits.mean_BKHW, 1).to(torch.uint8).cpu().numpy()
            matrix.update(np.stack([example.label_HW for example in batch]), prediction)
            done += len(batch)
            if progress is not None:
                progress(done, len(patches))
    finally:
        model.train(was_training)
    return matrix


def to_input(batch: Sequence[Example], device: torch.device, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The images of a batch as the network wants them, float32 [B, 3, H, W]."""
    image_BHWC = torch.from_numpy(np.stack([example.image_HWC for example in batch])).to(device)
    return normalise(image_BHWC.permute(0, 3, 1, 2).float() / 255, mean, std)


def forward(model: nn.Module, image_BCHW: Tensor, name: str) -> Logits:
    """The network's logits.

    Args:
        model: A `Segmenter` in evaluation mode.
        image_BCHW: See `to_input`.
        name: What the model is called in messages.

    Raises:
        DataError: Some are no finite numbers.
    """
    logits: Logits = model(image_BCHW)
    if not bool(logits.mean_BKHW.isfinite().all()):
        raise DataError(
            f"{name} answers with values that are no numbers: its weights are spoilt; take another checkpoint."
        )
    return logits


def read_batches(
    index: PatchIndex,
    patches: Sequence[Patch],
    class_map: ClassMap,
    logits_a_pixel: int = 1,
    on_unreadable: Callable[[Patch, UnreadableError], None] | None = None,
) -> Iterator[list[Example]]:
    """Labelled patches in order, in batches of one size each and of bounded area.

    Args:
        index: Where the patches lie.
        patches: Labelled patches.
        class_map: Classes to read masks by.
        logits_a_pixel: Heads times classes; more of them make smaller batches.
        on_unreadable: Called with a patch that cannot be read, which is left out; None makes it an error.

    Raises:
        DataError: A picture or mask that cannot be used.
    """
    most = min(_PIXELS, _LOGITS // logits_a_pixel)
    batch: list[Example] = []
    for example in _read_ahead(index, patches, class_map):
        if isinstance(example, _Unreadable):
            if on_unreadable is None:
                raise example.error
            on_unreadable(example.patch, example.error)
            continue
        height, width = example.label_HW.shape
        if batch and (batch[0].label_HW.shape != (height, width) or (len(batch) + 1) * height * width > most):
            yield batch
            batch = []
        batch.append(example)
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class _Unreadable:
    patch: Patch
    error: UnreadableError


def _read_ahead(index: PatchIndex, patches: Iterable[Patch], class_map: ClassMap) -> Iterator[Example | _Unreadable]:
    """Reads patches in order, a few ahead of the one that is asked for."""

    def read(patch: Patch) -> Example | _Unreadable:
        try:
            return Example(patch, *read_patch(index, patch, class_map))
        except UnreadableError as error:
            return _Unreadable(patch, error)

    yield from read_ahead(read, patches, _THREADS, 8 * _THREADS)
