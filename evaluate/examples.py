"""Pictures of the patches where a network fails: image, label, prediction, confidence, and where its heads differ.

Axes: H row, W column, C channel, K class.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from salakseg.classes import IGNORE_INDEX, ClassMap
from salakseg.data.patches import Patch, PatchIndex
from salakseg.evaluate.failures import ConfusedPair
from salakseg.evaluate.inference import Example, forward, read_batches, to_input
from salakseg.evaluate.subjects import Subject
from salakseg.evaluate.worst import WorstPatches
from salakseg.network.heads import combine_heads, most_probable

LARGEST = 384
"""Side of a picture in pixels; of a larger patch the part with most errors is shown."""

MOST_CLASSES = 12
"""Classes with pictures; of a longer class map those that are worst."""

Kind = Literal["class", "pair", "disagreement"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A picture to be made.

    Attributes:
        kind: Why the patch was chosen.
        classes: The class, or the true and the predicted one; empty for disagreement.
        pixels: Wrong pixels of the class, or pixels of the confusion; 0 for disagreement.
        patch: The patch.
    """

    kind: Kind
    classes: tuple[int, ...]
    pixels: int
    patch: Patch


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A patch, or the part of it with most errors.

    Attributes:
        wanted: Why it is shown.
        top: First row within the patch.
        left: First column within the patch.
        image_HWC: uint8 [H, W, 3].
        label_HW: Class ids, 255 where nobody labelled.
        prediction_HW: Class ids.
        confidence_HW: Probability of the predicted class, percent, uint8.
        disagreement_HW: Share of the heads that predict another class than most of them, percent, uint8; None with a
            single head.
    """

    wanted: Wanted
    top: int
    left: int
    image_HWC: NDArray[np.uint8]
    label_HW: NDArray[np.uint8]
    prediction_HW: NDArray[np.uint8]
    confidence_HW: NDArray[np.uint8]
    disagreement_HW: NDArray[np.uint8] | None

    @property
    def name(self) -> str:
        """The patch, with the corner where only a part is shown."""
        patch = self.wanted.patch
        place = f"{patch.folder}/{patch.image}" if patch.folder else patch.image
        place = place.encode("utf-8", "replace").decode("utf-8")  # a file's name can hold any byte
        return f"{place}, from row {self.top}, column {self.left}" if self.top or self.left else place


def choose_pictures(
    worst: WorstPatches, pairs: Sequence[ConfusedPair], iou_K: NDArray[np.float64]
) -> tuple[Wanted, ...]:
    """The worst patches of each class, the worst example of each confused pair, and where the heads differ most.

    Args:
        worst: What was kept while the patches passed by.
        pairs: Confused classes, the largest confusion first.
        iou_K: IoU of the classes.
    """
    shown = [int(k) for k in np.argsort(np.nan_to_num(iou_K, nan=2.0), kind="stable")[:MOST_CLASSES]]
    wanted = [Wanted("class", (k,), pixels, patch) for k in sorted(shown) for pixels, patch in worst.of_class(k)]
    for pair in pairs:
        found = worst.of_pair(pair.truth, pair.prediction)
        if found is not None:
            wanted.append(Wanted("pair", (pair.truth, pair.prediction), *found))
    wanted += [Wanted("disagreement", (), 0, patch) for _, patch in worst.of_disagreement]
    return tuple(wanted)


def draw_pictures(
    subject: Subject,
    index: PatchIndex,
    wanted: Sequence[Wanted],
    class_map: ClassMap,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Picture, ...]:
    """Runs the network once more over the chosen patches.

    Args:
        subject: The checkpoint, used as its variant says.
        index: Where the patches lie.
        wanted: Which patches; each is run once, however often it is wanted.
        class_map: Classes to read masks by.
        progress: Called with patches done and to do.

    Raises:
        DataError: A picture cannot be read any more.
    """
    patches = list(dict.fromkeys(one.patch for one in wanted))
    pictures: dict[int, Picture] = {}
    done = 0
    with torch.inference_mode():
        for batch in read_batches(index, patches, class_map, subject.heads * len(class_map)):
            for example in batch:
                answer = _answer(subject, example)
                for number, one in enumerate(wanted):
                    if one.patch == example.patch:
                        pictures[number] = _cut(one, example, *answer)
            done += len(batch)
            if progress is not None:
                progress(done, len(patches))
    return tuple(pictures[number] for number in range(len(wanted)))


Answer = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8] | None]


def _answer(subject: Subject, example: Example) -> Answer:
    """Prediction, confidence and disagreement [H, W]."""
    checkpoint, variant = subject.checkpoint, subject.variant
    image = to_input([example], subject.device, checkpoint.mean, checkpoint.std)
    logits = forward(subject.model(variant.weights), image, subject.name)
    confidence_HW, class_HW = combine_heads(logits, variant.heads, variant.temperature)[0].max(dim=0)
    percent_HW = (100 * confidence_HW).round().to(torch.uint8).cpu().numpy()
    disagreement_HW = None
    if subject.heads > 1:
        winners_NHW = most_probable(logits.heads_BNKHW[0], 1)
        votes_KHW = torch.stack([(winners_NHW == k).sum(dim=0) for k in range(logits.heads_BNKHW.shape[2])])
        others_HW = subject.heads - votes_KHW.amax(dim=0)
        disagreement_HW = (100 * others_HW // subject.heads).to(torch.uint8).cpu().numpy()
    return class_HW.to(torch.uint8).cpu().numpy(), percent_HW, disagreement_HW


def _cut(
    wanted: Wanted,
    example: Example,
    prediction_HW: NDArray[np.uint8],
    confidence_HW: NDArray[np.uint8],
    disagreement_HW: NDArray[np.uint8] | None,
) -> Picture:
    """The part of a patch with most of what it is shown for."""
    label_HW = example.label_HW
    valid_HW = label_HW != IGNORE_INDEX
    match wanted.kind, wanted.classes:
        case "pair", (truth, guess):
            shown_HW = (label_HW == truth) & (prediction_HW == guess)
        case "class", (k,):
            shown_HW = ((label_HW == k) != (prediction_HW == k)) & valid_HW
        case _:
            shown_HW = valid_HW if disagreement_HW is None else (disagreement_HW > 0) & valid_HW
    height, width = (min(side, LARGEST) for side in label_HW.shape)
    top, left = _densest(shown_HW, height, width)
    rows, cols = slice(top, top + height), slice(left, left + width)
    return Picture(
        wanted,
        top,
        left,
        example.image_HWC[rows, cols],
        label_HW[rows, cols],
        prediction_HW[rows, cols],
        confidence_HW[rows, cols],
        None if disagreement_HW is None else disagreement_HW[rows, cols],
    )


def _densest(shown_HW: NDArray[np.bool_], height: int, width: int) -> tuple[int, int]:
    """Corner of the window with most marked pixels."""
    if shown_HW.shape == (height, width):
        return 0, 0
    density = uniform_filter(shown_HW.astype(np.float32), (height, width), mode="constant")
    rows, cols = (side - size + 1 for side, size in zip(shown_HW.shape, (height, width), strict=True))
    inside = density[height // 2 : height // 2 + rows, width // 2 : width // 2 + cols]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(top), int(left)
