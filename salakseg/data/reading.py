"""The pixels of a patch, from its files or from a pack.

Axes: H row, W column, C red green blue.
"""

import numpy as np
from numpy.typing import NDArray

from salakseg.classes import ClassMap
from salakseg.data.masks import read_image, read_mask
from salakseg.data.patches import Patch, PatchIndex
from salakseg.data.survey import check_size


def read_picture(index: PatchIndex, patch: Patch) -> NDArray[np.uint8]:
    """The picture of a patch, uint8 [H, W, 3]; it may be read-only.

    Raises:
        DataError: It cannot be read.
    """
    return read_image(index.image_path(patch)) if index.pack is None else index.pack.image(patch)


def read_patch(index: PatchIndex, patch: Patch, class_map: ClassMap) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Picture and label of a labelled patch, uint8 [H, W, 3] and [H, W]; they may be read-only.

    Args:
        index: Where the patch lies.
        patch: A patch with a mask.
        class_map: Classes to read the mask by; those of the pack, if there is one.

    Raises:
        DataError: A file cannot be read, or picture and mask differ in size.
    """
    if index.pack is not None:
        return index.pack.image(patch), index.pack.label(patch)
    image_HWC = read_image(index.image_path(patch))
    label_HW = read_mask(index.mask_path(patch), class_map).label_HW
    check_size(index, patch, label_HW.shape, image_HWC.shape[:2])
    return image_HWC, label_HW
