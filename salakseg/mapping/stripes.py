"""Finished stripes of a map as files of their own, so that a run that was killed goes on where it was.

A growing GeoTIFF would not do: killed while it is written, it opens cleanly and reads zeros, which is a class. Here a
stripe counts only when its record has got its name, after its pixels are on the disk.
"""

import errno
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from salakseg.mapping.files import put_bytes
from salakseg.mapping.layers import CLASSES, Layers
from salakseg.mapping.opening import without_place
from salakseg.replacing import replace

Block = tuple[int, int, int, int]
"""Row, column, height and width of a block of the orthomosaic, pixels."""


@dataclass(slots=True)
class StripeRecord:
    """What is known of a finished stripe.

    Attributes:
        row: First row of the map.
        col: First column of the map.
        height: Rows; a stripe without any has no files beside this record.
        width: Columns.
        counts: Pixels of each class id, 256 of them.
        bad_blocks: Blocks of the orthomosaic that were found unreadable meanwhile.
        checksums: Of what was written: layer, first row within the stripe, rows, CRC-32.
    """

    row: int
    col: int
    height: int
    width: int
    counts: list[int] = field(default_factory=lambda: [0] * 256)
    bad_blocks: list[Block] = field(default_factory=list)
    checksums: list[tuple[str, int, int, int]] = field(default_factory=list)

    def holds(self, files: Mapping[str, Path]) -> bool:
        """Whether the rasters of all layers hold what was written.

        Raises:
            rasterio.errors.RasterioError: A file cannot be read.
        """
        for layer, file in files.items() if self.height else ():
            with without_place(), rasterio.open(file) as dataset:
                for _, row, height, told in (one for one in self.checksums if one[0] == layer):
                    if checksum(dataset.read(window=Window(0, row, self.width, height))) != told:
                        return False
        return True


class StripeFolder:
    """A folder of stripes.

    Args:
        path: The folder, which exists.
        layers: What each stripe holds.
    """

    def __init__(self, path: Path, layers: Layers) -> None:
        self.path = path
        self.layers = layers

    def file(self, layer: str, panel: int, stripe: int) -> Path:
        """The raster of one layer of a stripe."""
        return self.path / f"{layer}-{panel:04d}-{stripe:06d}.tif"

    def record_file(self, panel: int, stripe: int) -> Path:
        """The record of a stripe; it exists if the stripe is whole."""
        return self.path / f"stripe-{panel:04d}-{stripe:06d}.json"

    def is_done(self, panel: int, stripe: int) -> bool:
        """Whether a stripe is whole."""
        return self.record_file(panel, stripe).exists()

    def record(self, panel: int, stripe: int) -> StripeRecord:
        """The record of a stripe that is done."""
        values = json.loads(self.record_file(panel, stripe).read_text(encoding="utf-8"))
        values["bad_blocks"] = [tuple(block) for block in values["bad_blocks"]]
        values["checksums"] = [tuple(checksum) for checksum in values["checksums"]]
        return StripeRecord(**values)

    def is_sound(self, panel: int, stripe: int) -> bool:
        """Whether a stripe is done and its files hold what was written; it is to be made again otherwise."""
        if not self.is_done(panel, stripe):
            return False
        try:
            record = self.record(panel, stripe)
            return record.holds({layer: self.file(layer, panel, stripe) for layer in self.layers.bands})
        except (OSError, ValueError, TypeError, KeyError, RasterioError):
            return False

    def open_stripe(self, panel: int, stripe: int, record: StripeRecord) -> "OpenStripe":
        """Begins a stripe.

        Args:
            panel: Index of the panel.
            stripe: Index of the stripe.
            record: Its place; the counts are filled in.
        """
        return OpenStripe(self, panel, stripe, record)

    def put_record(self, panel: int, stripe: int, record: StripeRecord) -> None:
        """Marks a stripe, whose rasters are in place, as done."""
        put_bytes(self.record_file(panel, stripe), json.dumps(asdict(record)).encode())


class OpenStripe:
    """A stripe that is being written. All calls but the first must come from one thread.

    Args:
        folder: Where it belongs.
        panel: Index of the panel.
        stripe: Index of the stripe.
        record: Its place; the counts are filled in.
    """

    def __init__(self, folder: StripeFolder, panel: int, stripe: int, record: StripeRecord) -> None:
        self._folder, self._panel, self._stripe, self._record = folder, panel, stripe, record
        self._datasets: dict[str, Any] = {}
        self._complete = True

    def write(self, row: int, layers: Mapping[str, NDArray[np.generic]]) -> None:
        """Writes some rows.

        Args:
            row: The first of them, on the map.
            layers: [bands, rows, width of the stripe] by layer.
        """
        done, self._complete = self._complete, False
        for layer, values in layers.items():
            if layer not in self._datasets:
                self._datasets[layer] = _create(self._partial(layer), self._folder.layers, layer, self._record)
            window = Window(0, row - self._record.row, values.shape[2], values.shape[1])
            self._datasets[layer].write(values, window=window)
            self._record.checksums.append((layer, int(window.row_off), int(window.height), checksum(values)))
        found = np.bincount(layers[CLASSES].ravel().astype(np.uint8), minlength=256)
        self._record.counts = [int(before + now) for before, now in zip(self._record.counts, found, strict=True)]
        self._complete = done

    def commit(self) -> None:
        """Gives the stripe its name; does nothing if a write failed, whose error the writer has seen.

        Raises:
            OSError: What was written is not what the files hold.
        """
        self.close()
        if not self._complete:
            return
        # On a full disk GDAL closes a GeoTIFF without a word, and what is missing reads as zeros.
        if not self._record.holds({layer: self._partial(layer) for layer in self._folder.layers.bands}):
            raise OSError(errno.EIO, "a stripe was not written completely")
        for layer in self._folder.layers.bands if self._record.height else ():
            to_disk(self._partial(layer))
            replace(self._partial(layer), self._folder.file(layer, self._panel, self._stripe))
        self._folder.put_record(self._panel, self._stripe, self._record)

    def close(self) -> None:
        """Closes the files; without `commit` they count for nothing."""
        for dataset in self._datasets.values():
            dataset.close()
        self._datasets = {}

    def _partial(self, layer: str) -> Path:
        path = self._folder.file(layer, self._panel, self._stripe)
        return path.with_name(f"{path.name}.part")


def _create(path: Path, layers: Layers, layer: str, record: StripeRecord) -> Any:  # noqa: ANN401
    path.unlink(missing_ok=True)  # GDAL looks into a file before it replaces it, and an earlier run may have torn it
    with without_place():
        return rasterio.open(
            path,
            "w",
            driver="GTiff",
            dtype="float32" if layers.is_float(layer) else "uint8",
            count=layers.bands[layer],
            height=record.height,
            width=record.width,
            interleave="band",
            compress="deflate",
            zlevel=1,
            blockysize=min(64, record.height),
            BIGTIFF="IF_SAFER",
        )


def checksum(values: NDArray[np.generic]) -> int:
    """CRC-32 of some pixels, by which they are known again."""
    if values.dtype.kind == "f":  # not-a-number has many faces
        values = np.nan_to_num(values, nan=-1.0)
    return zlib.crc32(np.ascontiguousarray(values).tobytes())


def to_disk(path: Path) -> None:
    """Waits until a file's content is on the disk: else a power cut can leave its new name on an empty file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
