"""What a variant costs in time beside the plain one, measured in one go.

Axes: B image, C channel, H row, W column.
"""

import statistics
import time

import torch
from torch import Tensor

from salakseg.evaluate.findings import Cost
from salakseg.evaluate.inference import forward
from salakseg.evaluate.subjects import Subject
from salakseg.evaluate.variants import TURNS, TurnedMean, Way, turn
from salakseg.network.heads import combine_heads, most_probable
from salakseg.network.variant import Variant

_REPEATS = 3
_PLAIN = Way(Variant())


def cost_of(subject: Subject, way: Way, image_BCHW: Tensor) -> Cost:
    """Times a way of using a checkpoint and the plain one in turn, and takes the medians.

    Args:
        subject: The checkpoint.
        way: How it is used.
        image_BCHW: Some images as the network wants them.
    """
    seconds: dict[Way, list[float]] = {_PLAIN: [], way: []}
    for repeat in range(_REPEATS + 1):
        for one, times in seconds.items():
            start = time.perf_counter()
            _run(subject, one, image_BCHW)
            if repeat:  # the first is slower than all that follow
                times.append(time.perf_counter() - start)
    megapixels = image_BCHW.shape[0] * image_BCHW.shape[2] * image_BCHW.shape[3] / 1e6
    best, plain = (statistics.median(seconds[one]) / megapixels for one in (way, _PLAIN))
    where = torch.cuda.get_device_name(subject.device) if subject.device.type == "cuda" else subject.device.type
    return Cost(best, plain, where)


@torch.inference_mode()
def _run(subject: Subject, way: Way, image_BCHW: Tensor) -> None:
    model, variant = subject.model(way.variant.weights), way.variant
    if way.tta:
        mean = TurnedMean({variant.heads: variant.temperature})
        for turns, flip in TURNS:
            mean.add(forward(model, turn(image_BCHW, turns, flip), subject.name), turns, flip)
        prob_BKHW = mean.probabilities(variant.heads)
    else:
        prob_BKHW = combine_heads(forward(model, image_BCHW, subject.name), variant.heads, variant.temperature)
    most_probable(prob_BKHW, 1).cpu()  # waits for the device
