"""What makes points a sample of a map: how they were drawn, kept with them, and compared with what came back.

Axes: K classes, N points.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from salakseg.evaluate.sampling import Sample
from salakseg.evaluate.strata import LandCover

SCHEMA = "salakseg.sample"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Design:
    """How a stratified random sample was drawn. No point's class is in it, so that whoever labels stays unbiased.

    Attributes:
        map_name: Name of the map's file.
        digest: Of the map, see `Digest`.
        height: Rows of the map.
        width: Columns of the map.
        seed: What the generator was started with.
        class_names: Names of the strata [K].
        stratum_pixels: Pixels of each [K].
        stratum_points: Points drawn from each [K].
        pixels: Row times width plus column of each point [N], by its number from 1 on.
    """

    map_name: str
    digest: str
    height: int
    width: int
    seed: int
    class_names: tuple[str, ...]
    stratum_pixels: tuple[int, ...]
    stratum_points: tuple[int, ...]
    pixels: tuple[int, ...]

    @classmethod
    def of(cls, land_cover: LandCover, sample: Sample) -> Self:
        """The design of a sample that was drawn."""
        return cls(
            map_name=land_cover.path.name,
            digest=sample.digest,
            height=land_cover.height,
            width=land_cover.width,
            seed=sample.seed,
            class_names=land_cover.class_map.names,
            stratum_pixels=tuple(land_cover.pixels_K.tolist()),
            stratum_points=tuple(sample.points_K.tolist()),
            pixels=tuple((sample.row_N * land_cover.width + sample.col_N).tolist()),
        )

    def to_json(self) -> str:
        """As text that `from_json` reads."""
        return json.dumps({"schema": SCHEMA, "version": VERSION, **asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The reverse of `to_json`.

        Raises:
            ValueError: Another schema or version, or an entry that is missing or wrong.
        """
        record = json.loads(text)
        if not isinstance(record, dict) or record.get("schema") != SCHEMA or record.get("version") != VERSION:
            raise ValueError(f"not a {SCHEMA} of version {VERSION}")
        try:
            return cls(
                map_name=str(record["map_name"]),
                digest=str(record["digest"]),
                height=int(record["height"]),
                width=int(record["width"]),
                seed=int(record["seed"]),
                class_names=tuple(map(str, record["class_names"])),
                stratum_pixels=tuple(map(int, record["stratum_pixels"])),
                stratum_points=tuple(map(int, record["stratum_points"])),
                pixels=tuple(map(int, record["pixels"])),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"an entry is missing or wrong ({error})") from error


@dataclass(frozen=True, slots=True)
class Differences:
    """In what points differ from the sample that they were.

    Attributes:
        moved: Numbers of points that lie in other pixels now.
        added: How many points were added, or copied.
        deleted: Numbers of points that are gone. The others are a sample all the same if chance, and not the ground,
            decided which; so it is with points that have no label.
    """

    moved: tuple[int, ...]
    added: int
    deleted: tuple[int, ...]


def compare(design: Design, numbers: Sequence[int | None], pixel_N: NDArray[np.int64]) -> Differences:
    """Compares points with the design.

    Args:
        design: How they were drawn.
        numbers: Their numbers [N]; None for a point without one.
        pixel_N: Row times width plus column of their pixels [N], negative beyond the map.
    """
    seen: set[int] = set()
    moved: list[int] = []
    added = 0
    for number, pixel in zip(numbers, pixel_N.tolist(), strict=True):
        if number is None or number in seen or not 1 <= number <= len(design.pixels):
            added += 1
            continue
        seen.add(number)
        if design.pixels[number - 1] != pixel:
            moved.append(number)
    deleted = tuple(sorted(set(range(1, len(design.pixels) + 1)) - seen))
    return Differences(tuple(sorted(moved)), added, deleted)
