"""Where a drone photo was taken and what ground it shows, by what the camera wrote into it."""

import math
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from salakseg.errors import DataError

DIAGONAL_35MM = math.hypot(36, 24)
"""Millimetres of the film that focal lengths are compared with; cameras compare by the diagonal."""

NADIR_DEGREES = 5.0
"""A camera that leans less looks straight down."""

_STEEPEST_DEGREES = 70.0  # beyond it a view reaches so far that the centre says nothing of its ground
_LEAST_HEIGHT_M = 1.0


@dataclass(frozen=True, slots=True)
class Shot:
    """A photo's place.

    Attributes:
        longitude: Degrees (WGS 84).
        latitude: Degrees.
        height_m: Metres above the place of take-off; None if it is not told. The height above the sea, which EXIF
            tells as well, says nothing of the ground.
        focal_35mm: Focal length in millimetres for 35 mm film; None if it is not told.
        yaw_degrees: Direction of the picture's top, clockwise from north; None if it is not told.
        tilt_degrees: How far the camera leans from looking straight down; None if it is not told.
        width: Pixels.
        height: Pixels.
    """

    longitude: float
    latitude: float
    height_m: float | None
    focal_35mm: float | None
    yaw_degrees: float | None
    tilt_degrees: float | None
    width: int
    height: int

    def outline(self, footprint_m: float | None = None) -> NDArray[np.float64] | None:
        """Corners of the ground that the photo shows, in metres east and north of its place.

        Args:
            footprint_m: Metres from corner to corner, for whatever direction; None works it out.

        Returns:
            float64 [4, 2]; None if the photo does not tell enough. A square around all directions where the direction
            is not known.
        """
        if footprint_m is not None:
            return _square(footprint_m / 2)
        if self.height_m is None or self.focal_35mm is None:
            return None
        half_angle = math.atan(DIAGONAL_35MM / 2 / self.focal_35mm)
        tilt = math.radians(self.tilt_degrees or 0.0)
        if math.degrees(tilt) > NADIR_DEGREES:
            furthest = tilt + half_angle
            return None if math.degrees(furthest) > _STEEPEST_DEGREES else _square(self.height_m * math.tan(furthest))
        radius = self.height_m * math.tan(half_angle)
        if self.yaw_degrees is None:
            return _square(radius)
        scale = radius / math.hypot(self.width, self.height)
        x, y = scale * self.width, scale * self.height
        corners = np.array([[-x, y], [x, y], [x, -y], [-x, -y]])
        sine, cosine = math.sin(math.radians(self.yaw_degrees)), math.cos(math.radians(self.yaw_degrees))
        return np.asarray(corners @ np.array([[cosine, -sine], [sine, cosine]]))


def read_shot(path: Path) -> Shot | None:
    """Reads a photo's place from its header.

    Args:
        path: A photo as the camera wrote it.

    Returns:
        Its place; None if it has none.

    Raises:
        DataError: It is no picture.
    """
    gps: dict[int, Any] = {}
    camera: dict[int, Any] = {}
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            xmp, size = picture.info.get("xmp") or b"", picture.size
            with damaged_exif_says_nothing():
                exif = picture.getexif()
                xmp = xmp or exif.get(ExifTags.Base.XMLPacket) or b""
                gps, camera = exif.get_ifd(ExifTags.IFD.GPSInfo), exif.get_ifd(ExifTags.IFD.Exif)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is no readable photo ({error}); copy it anew or remove it.") from error
    latitude = _degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef), "S", 90)
    longitude = _degrees(gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef), "W", 180)
    if latitude is None or longitude is None or (latitude == 0 and longitude == 0):  # 0, 0: the receiver had no fix
        return None
    told = xmp if isinstance(xmp, bytes) else str(xmp).encode()
    height = _tag(told, "RelativeAltitude")
    focal = _number(camera.get(ExifTags.Base.FocalLengthIn35mmFilm))
    yaw, pitch = _tag(told, "GimbalYawDegree"), _tag(told, "GimbalPitchDegree")
    if yaw is None:
        yaw = _number(gps.get(ExifTags.GPS.GPSImgDirection))
    return Shot(
        longitude=longitude,
        latitude=latitude,
        height_m=height if height is not None and height >= _LEAST_HEIGHT_M else None,
        focal_35mm=focal if focal is not None and focal > 0 else None,
        yaw_degrees=yaw,
        tilt_degrees=None if pitch is None else abs(90 + pitch),
        width=size[0],
        height=size[1],
    )


@contextmanager
def damaged_exif_says_nothing() -> Iterator[None]:
    """Ends what is done in it at EXIF data that is damaged: the pixels may be whole all the same."""
    with suppress(OSError, SyntaxError, ValueError, LookupError, TypeError, struct.error):
        yield


def _square(half: float) -> NDArray[np.float64]:
    return np.array([[-half, half], [half, half], [half, -half], [-half, -half]])


def _degrees(parts: Any, side: Any, negative: str, most: int) -> float | None:  # noqa: ANN401
    try:
        degrees, minutes, seconds = (float(part) for part in parts)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    value = degrees + minutes / 60 + seconds / 3600
    if not 0 <= value <= most:  # NaN, too
        return None
    word = side.decode("ascii", "replace") if isinstance(side, bytes) else str(side)
    return -value if word.strip("\0 ").upper() == negative else value


def _number(value: Any) -> float | None:  # noqa: ANN401
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None


def _tag(xmp: bytes, name: str) -> float | None:
    """A number of DJI's own, an attribute or an element of the packet."""
    match = re.search(rf'drone-dji:{name}\s*(?:=\s*["\']|>)\s*([+-]?[\d.]+)'.encode(), xmp)
    return None if match is None else _number(match[1])
