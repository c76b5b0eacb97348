"""The labeller looks at a view more than once, mirrored and at other sizes, and says the mean.

Axes: B image, N head, K class, H row, W column.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from salakseg.network.heads import Logits

FLIPS = ((), (-1,), (-2,), (-2, -1))
"""The view itself and its mirror images: the axes that are turned round."""


def mean_of_looks(
    network: Callable[[Tensor], Logits], image_BCHW: Tensor, flips: int, scales: Sequence[float]
) -> Logits:
    """What a network says of images that it sees at every scale, and at each with its mirror images.

    The mean is taken over probabilities, and given as logits at the size of the images.

    Args:
        network: Gives logits of the size of its images.
        image_BCHW: Normalised images, float.
        flips: Mirror images beside the view itself, 0 to 3, in the order of `FLIPS`.
        scales: Factors of the sides.
    """
    size = image_BCHW.shape[-2:]
    answers = []
    for scale in scales:
        seen = image_BCHW if scale == 1 else _resized(image_BCHW, [max(1, round(side * scale)) for side in size])
        answers += [(network(seen.flip(axes)), axes) for axes in FLIPS[: 1 + flips]]
    if len(answers) == 1 and answers[0][0].mean_BKHW.shape[-2:] == size:
        return answers[0][0]
    heads = torch.stack([_upright(answer.heads_BNKHW.float().softmax(dim=2), axes, size) for answer, axes in answers])
    mean = torch.stack([_upright(answer.mean_BKHW.float().softmax(dim=1), axes, size) for answer, axes in answers])
    return Logits(*(prob.mean(dim=0).clamp(min=1e-8).log() for prob in (heads, mean)))


def _upright(prob: Tensor, axes: tuple[int, ...], size: torch.Size) -> Tensor:
    prob = prob.flip(axes)
    if prob.shape[-2:] == size:
        return prob
    return _resized(prob.flatten(0, -4), list(size)).reshape(*prob.shape[:-2], *size)


def _resized(maps_BCHW: Tensor, size: list[int]) -> Tensor:
    """Shrinking, each pixel is the mean of what it covers."""
    return functional.interpolate(maps_BCHW, size=size, mode="bilinear", align_corners=False, antialias=True)
