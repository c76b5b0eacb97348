"""What a network is made of: the part of a recipe that also stands in every checkpoint."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of red, green and blue on a scale of 0 to 1, as the weights of torchvision and timm expect it."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation to `IMAGENET_MEAN`."""


class NetworkConfig(BaseModel):
    """Encoder, decoder and heads."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    architecture: str = "deeplabv3plus"
    """Decoder of segmentation-models-pytorch."""
    encoder: str = "resnet50"
    """Encoder of segmentation-models-pytorch, such as ``resnet50`` or ``timm-tf_efficientnet_lite0``."""
    encoder_weights: str = "imagenet"
    """``imagenet``, ``none`` or a file with a state dictionary of the encoder."""
    output_stride: Literal[8, 16] = 16
    """Input pixels for each pixel of the encoder's last feature map; DeepLab only."""
    heads: Literal["v3", "diverse"] = "v3"
    """``v3``: dropout and a 1x1 convolution; ``diverse``: DiverseNet's, which begin with a 3x3 convolution."""
    head_dropout: tuple[Annotated[float, Field(ge=0.0, lt=1.0)], ...] = Field(default=(0.10, 0.15, 0.20), min_length=1)
    """Dropout of each head, 0 to 1; there are as many heads as values."""

    def published(self) -> dict[str, Any]:
        """Plain values that can be given away: a file with encoder weights goes by its name, not by where it lay."""
        values = self.model_dump(mode="json")
        return values | {"encoder_weights": file_name(self.encoder_weights)}


def published_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved recipe as it can be given away, see `NetworkConfig.published`."""
    values = dict(recipe)
    if isinstance(network := values.get("network"), Mapping) and "encoder_weights" in network:
        values["network"] = {**network, "encoder_weights": file_name(str(network["encoder_weights"]))}
    return values


def file_name(path: str) -> str:
    """What stands behind the last separator, of whichever system the file lay on."""
    return re.split(r"[\\/]", path)[-1]
