"""Brightness and colour by folder, and folders that differ from what the labels were drawn on.

Pseudo-labels are worst where imagery looks unlike the labelled one: another flight hour, camera or exposure. A folder
is compared with the labelled patches of the other folders by the mean colour of each patch in CIELAB (D65): the
distance of the two means in standard deviations of the labelled patches (Cohen's d), for lightness, green to red and
blue to yellow each. It is called shifted from one standard deviation on (0.8 is "large" by Cohen 1988), if the means
are also at least 6 units apart, which a person sees at once side by side. Both, because the first alone would take
offence at any two flights over uniform ground, and the second at any two folders with other land cover. A folder with
more than half of the labels is what the others are measured by, and not judged itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salakseg.check.finding import MOST_EXAMPLES, Finding, Severity, counted
from salakseg.check.record import FINE
from salakseg.check.scan import Scan
from salakseg.data.patches import natural_key

LEAST_DISTANCE = 1.0
"""Standard deviations."""

LEAST_DIFFERENCE = 6.0
"""Units of CIELAB; some 15 levels of 255 in brightness."""

LEAST_PATCHES = 5
"""On either side; means of fewer are too rough to compare."""

_WORDS = (("darker", "brighter"), ("greener", "redder"), ("bluer", "yellower"))
_XYZ_OF_RGB = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = _XYZ_OF_RGB.sum(axis=1)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Colours:
    """Colours of the pictures of a folder, or of all.

    Attributes:
        name: The folder, "" for the plain layout.
        pictures: How many could be read.
        mean_C: Mean over the pixels, 0 to 255, red green blue, float64 [3]; NaN without a picture.
        std_C: Standard deviation over the pixels, likewise.
        lab_C: Mean of the pictures' mean colours in CIELAB.
        distance_C: Distance from the labelled patches of the other folders in standard deviations, signed, for each
            of L, a and b; NaN where there is nothing to compare with.
        difference_C: The same in units of CIELAB.
    """

    name: str
    pictures: int
    mean_C: Floats
    std_C: Floats
    lab_C: Floats
    distance_C: Floats
    difference_C: Floats

    @property
    def is_shifted(self) -> bool:
        """Whether it differs so much that a warning is due."""
        return bool(_beyond(self.distance_C, self.difference_C).any())

    @property
    def shift_text(self) -> str:
        """In which way it differs, such as "darker by 14 and bluer by 8 units of CIELAB"; empty if it does not."""
        parts = [
            f"{_WORDS[channel][int(self.difference_C[channel] > 0)]} by {abs(self.difference_C[channel]):.0f} "
            f"({abs(self.distance_C[channel]):.1f} sd)"
            for channel in np.flatnonzero(_beyond(self.distance_C, self.difference_C))
        ]
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None where nothing is known."""
        values = {
            "mean": self.mean_C,
            "std": self.std_C,
            "lab": self.lab_C,
            "shift_sd": self.distance_C,
            "shift_lab": self.difference_C,
        }
        return {
            "pictures": self.pictures,
            **{key: [round(v, 4) if np.isfinite(v) else None for v in value.tolist()] for key, value in values.items()},
            "shifted": self.is_shifted,
        }


def folder_colours(scan: Scan) -> list[Colours]:
    """Colours of each folder, and how far they are from the labelled patches elsewhere."""
    fine_N = scan.pictures["state"] == FINE
    labelled_N = np.zeros(len(scan.patches), bool)
    labelled_N[scan.labelled] = True
    lab_NC = lab_of(mean_colours(scan.pictures))
    found = []
    for folder in sorted({patch.folder for patch in scan.patches}, key=natural_key):
        inside_N = _inside(scan, folder)
        own_N, others_N = fine_N & inside_N, fine_N & labelled_N & ~inside_N
        has_most = labelled_N[inside_N].sum() > labelled_N[~inside_N].sum()  # the others are measured by it
        distance_C, difference_C = _apart(lab_NC[own_N], lab_NC[others_N & (not has_most)])
        mean_C, std_C = channel_moments(scan.pictures[own_N])
        lab_C = lab_NC[own_N].mean(axis=0) if own_N.any() else np.full(3, np.nan)
        found.append(Colours(folder, int(own_N.sum()), mean_C, std_C, lab_C, distance_C, difference_C))
    return found


def shift_findings(scan: Scan, colours: list[Colours]) -> Iterator[Finding]:
    """Folders that look unlike the labelled patches.

    Args:
        scan: The patches.
        colours: What `folder_colours` gives.
    """
    shifted = [one for one in colours if one.is_shifted]
    backwards = [one for one in shifted if _fits_backwards(scan, one.name)]
    if backwards:
        yield Finding(
            "reversed-pictures",
            Severity.WARNING,
            len(backwards),
            tuple(one.name for one in backwards[:MOST_EXAMPLES]),
            f"{counted(len(backwards), 'folder looks', 'folders look')} unlike the labelled patches elsewhere, but "
            "like them once red and blue change places: the pictures may have been written in BGR order.",
            "Look at one of them; if people and soil look blue, write the pictures anew in RGB order.",
            tuple(one.shift_text for one in backwards[:MOST_EXAMPLES]),
        )
    shifted = [one for one in shifted if one not in backwards]
    if shifted:
        shifted.sort(key=lambda one: -float(np.nanmax(np.abs(one.distance_C))))
        yield Finding(
            "folder-shift",
            Severity.WARNING,
            len(shifted),
            tuple(one.name or "." for one in shifted[:MOST_EXAMPLES]),
            f"{counted(len(shifted), 'folder differs', 'folders differ')} in brightness or colour from the "
            f"labelled patches of the other folders, by at least {LEAST_DISTANCE:g} standard deviation and "
            f"{LEAST_DIFFERENCE:g} units of CIELAB; pseudo-labels are less reliable there.",
            "Label a few photos of such a folder, or even out exposure and white balance before cutting.",
            tuple(one.shift_text for one in shifted[:MOST_EXAMPLES]),
        )


def mean_colours(pictures: NDArray[np.void]) -> Floats:
    """Mean colour of each picture, 0 to 255, float64 [N, 3]; 0 for those that could not be read."""
    pixels_N = pictures["height"].astype(np.float64) * pictures["width"]
    means: Floats = pictures["sum"] / np.maximum(pixels_N, 1)[:, None]
    return means


def channel_moments(pictures: NDArray[np.void]) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each channel over all pixels of pictures that could be read, float64 [3] each."""
    fine = pictures[pictures["state"] == FINE]
    pixels = float((fine["height"].astype(np.float64) * fine["width"]).sum())
    if not pixels:
        return np.full(3, np.nan), np.full(3, np.nan)
    mean_C = fine["sum"].sum(axis=0) / pixels
    variance_C = fine["squares"].sum(axis=0) / pixels - mean_C**2
    return mean_C, np.sqrt(np.maximum(variance_C, 0))


def lab_of(rgb_NC: Floats) -> Floats:
    """Colours in sRGB, 0 to 255, as CIELAB under D65: L 0 to 100, a and b about -100 to 100, float64 [N, 3]."""
    share = rgb_NC / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    relative = linear @ _XYZ_OF_RGB.T / _WHITE
    cube = np.where(relative > 216 / 24389, np.cbrt(relative), (24389 / 27 * relative + 16) / 116)
    x, y, z = cube.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def _inside(scan: Scan, folder: str) -> NDArray[np.bool_]:
    return np.fromiter((patch.folder == folder for patch in scan.patches), bool, len(scan.patches))


def _apart(own_NC: Floats, others_MC: Floats) -> tuple[Floats, Floats]:
    if min(len(own_NC), len(others_MC)) < LEAST_PATCHES:
        return np.full(3, np.nan), np.full(3, np.nan)
    difference_C = own_NC.mean(axis=0) - others_MC.mean(axis=0)
    return difference_C / np.maximum(others_MC.std(axis=0), 1e-6), difference_C


def _beyond(distance_C: Floats, difference_C: Floats) -> NDArray[np.bool_]:
    both: NDArray[np.bool_] = (np.abs(distance_C) >= LEAST_DISTANCE) & (np.abs(difference_C) >= LEAST_DIFFERENCE)
    return both  # NaN compares as False


def _fits_backwards(scan: Scan, folder: str) -> bool:
    """Whether a folder would be three times nearer, and not shifted, if red and blue changed places."""
    fine_N = scan.pictures["state"] == FINE
    own_N = fine_N & _inside(scan, folder)
    labelled_N = np.zeros(len(scan.patches), bool)
    labelled_N[scan.labelled] = True
    rgb_NC = mean_colours(scan.pictures)
    others_MC = lab_of(rgb_NC[fine_N & labelled_N & ~own_N])
    (_, straight), (distance, backwards) = (
        _apart(lab_of(rgb), others_MC) for rgb in (rgb_NC[own_N], rgb_NC[own_N][:, ::-1])
    )
    nearer = 3 * np.linalg.norm(backwards) < np.linalg.norm(straight)
    return bool(nearer and not _beyond(distance, backwards).any())
