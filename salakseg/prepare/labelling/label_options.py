"""What a user decides about labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Fill = Literal["ignore", "background"]
"""What an area becomes, within a labelled source, that nobody labelled: 255, or class 0."""


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """How labels are to be read.

    Shapes that overlap lie in the order in which they were drawn (features of a file, annotations, shapes of a
    photo): a later one covers an earlier one. `priority_column` and `priority` go before that order.

    Attributes:
        class_column: Column of a polygon file that holds class names or ids; None finds it by its content.
        layer: Layer of a polygon file; None takes the only one that holds polygons.
        priority_column: Column of numbers of a polygon file; a higher one lies on top, none at the bottom.
        priority: Class names or ids from bottom to top; classes that are not listed lie beneath those that are.
        fill: What unlabelled area within a labelled source becomes. What was drawn or stored as ignore, and colours
            in no class, stay 255 either way.
        all_touched: Burn polygons into every pixel that they touch, not only into those whose centre they hold.
        reviewed: Polygon file, or folder of such files named as the sources: only what lies in its polygons counts as
            labelled, whatever the labels say elsewhere. It needs no class column.
    """

    class_column: str | None = None
    layer: str | None = None
    priority_column: str | None = None
    priority: tuple[str, ...] = ()
    fill: Fill = "ignore"
    all_touched: bool = False
    reviewed: Path | None = None
