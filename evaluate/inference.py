"""Running a network over whole, unaugmented patches and counting what it says.

Axes: B image, K class, C channel, H row, W column.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from salakseg.classes import ClassMap
from salakseg.data.masks import read_image, read_mask
from salakseg.data.patches import Patch, PatchIndex
from salakseg.data.survey import check_size
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.network.config import IMAGENET_MEAN, IMAGENET_STD
from salakseg.network.model import normalise

_THREADS = 2  # decoding runs outside Python's lock, beside the network
_PIXELS = 16 * 256 * 256  # pixels in a batch: enough to keep a device busy, little enough for 4 GB


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
) -> ConfusionMatrix:
    """Confusion matrix of a network over labelled patches.

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

    Raises:
        DataError: A picture or mask that cannot be used.
    """
    matrix = ConfusionMatrix(len(class_map))
    was_training = model.training
    model.eval()
    done = 0
    try:
        for batch in _same_size(_read_ahead(index, patches, class_map)):
            image_BHWC = torch.from_numpy(np.stack([example.image_HWC for example in batch])).to(device)
            image_BCHW = normalise(image_BHWC.permute(0, 3, 1, 2).float() / 255, mean, std)
            matrix.update(np.stack([example.label_HW for example in batch]), _predict(model, image_BCHW))
            done += len(batch)
            if progress is not None:
                progress(done, len(patches))
    finally:
        model.train(was_training)
    return matrix


@torch.inference_mode()
def _predict(model: nn.Module, image_BCHW: Tensor) -> NDArray[np.uint8]:
    prediction: NDArray[np.uint8] = model(image_BCHW).mean_BKHW.argmax(dim=1).to(torch.uint8).cpu().numpy()
    return prediction


def _read_ahead(index: PatchIndex, patches: Iterable[Patch], class_map: ClassMap) -> Iterator[Example]:
    """Reads patches in order, a few ahead of the one that is asked for."""

    def read(patch: Patch) -> Example:
        image_HWC = read_image(index.image_path(patch))
        label_HW = read_mask(index.mask_path(patch), class_map).label_HW
        check_size(index, patch, label_HW.shape, image_HWC.shape[:2])
        return Example(patch, image_HWC, label_HW)

    waiting = iter(patches)
    with ThreadPoolExecutor(_THREADS) as pool:
        pending: deque[Future[Example]] = deque(pool.submit(read, patch) for patch in islice(waiting, 8 * _THREADS))
        while pending:
            example = pending.popleft().result()
            pending.extend(pool.submit(read, patch) for patch in islice(waiting, 1))
            yield example


def _same_size(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Groups neighbours of one size into batches of bounded area."""
    batch: list[Example] = []
    for example in examples:
        height, width = example.label_HW.shape
        if batch and (batch[0].label_HW.shape != (height, width) or (len(batch) + 1) * height * width > _PIXELS):
            yield batch
            batch = []
        batch.append(example)
    if batch:
        yield batch
