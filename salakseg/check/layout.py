"""Findings that directory listings alone give: files that have no partner, or that nothing reads."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from salakseg.check.finding import MOST_EXAMPLES, Finding, Severity, counted
from salakseg.data.patches import LayoutProblem, PatchIndex

_REMEDIES = {
    "jpeg-mask": "Save the masks anew as PNG, from where they were drawn; JPEG has mixed the colours at every border.",
    "doubled-stem": "Remove one of the two; a patch is known by its file name without the extension.",
}
_MESSAGES = {
    "jpeg-mask": "{} stored as JPEG, and training refuses the folder for it.",
    "doubled-stem": "{} the name of another file but for the extension, and training refuses the folder for it.",
}


def layout_findings(index: PatchIndex, problems: Sequence[LayoutProblem] = ()) -> Iterator[Finding]:
    """What is wrong with names and places of the files.

    Args:
        index: The patches.
        problems: What `index_patches` would have refused.
    """
    for kind in _MESSAGES:
        of_kind = [problem for problem in problems if problem.kind == kind]
        if of_kind:
            paths = tuple(Path(problem.path).as_posix() for problem in of_kind[:MOST_EXAMPLES])
            subject = counted(len(of_kind), "mask is", "masks are")
            if kind == "doubled-stem":
                subject = counted(len(of_kind), "file has", "files have")
            message = _MESSAGES[kind].format(subject)
            yield Finding(kind, Severity.ERROR, len(of_kind), paths, message, _REMEDIES[kind])
    yield from _orphans(index)
    yield from _passed_over(index)
    yield from _whole_photos(index)


def _orphans(index: PatchIndex) -> Iterator[Finding]:
    names = [Path(name).as_posix() for name in index.orphan_masks]
    if names:
        yield Finding(
            "orphan-mask",
            Severity.WARNING,
            len(names),
            tuple(names[:MOST_EXAMPLES]),
            f"{counted(len(names), 'mask has', 'masks have')} no picture of the same name and will not be used.",
            "Give each mask the name of its picture, apart from the extension, or bring the pictures back.",
        )
    labelled = {patch.folder for patch in index.patches if patch.mask is not None}
    folders = {patch.folder for patch in index.patches}
    stray = [folder for folder in sorted(folders - labelled) if (index.root / folder / "masks").is_dir()]
    if stray:
        yield Finding(
            "stray-masks",
            Severity.WARNING,
            len(stray),
            tuple((Path(folder) / "masks").as_posix() for folder in stray[:MOST_EXAMPLES]),
            f"{counted(len(stray), 'folder has', 'folders have')} a masks folder in which no mask fits a picture, so "
            "all patches there count as unlabelled.",
            "Put the masks there under the names of their pictures, or remove the empty folder.",
        )


def _passed_over(index: PatchIndex) -> Iterator[Finding]:
    read = {patch.folder for patch in index.patches}
    found: list[tuple[str, str]] = []
    with os.scandir(index.root) as entries:
        folders = sorted(
            entry.name
            for entry in entries
            if entry.is_dir() and not entry.name.startswith(".") and entry.name not in ("images", "masks")
        )
    for folder in folders:
        if folder in read:
            continue
        if (index.root / folder / "images").is_dir():
            plain = "the root has images of its own" if "" in read else "no picture in its images folder"
            found.append((folder, plain))
        elif (index.root / folder / "masks").is_dir():
            found.append((folder, "masks, but no images folder"))
    if found:
        yield Finding(
            "passed-over",
            Severity.WARNING,
            len(found),
            tuple(name for name, _ in found[:MOST_EXAMPLES]),
            f"{counted(len(found), 'folder looks', 'folders look')} like data, but nothing is read from "
            f"{'it' if len(found) == 1 else 'them'}.",
            "Bring every folder into the form ROOT/<folder>/images and ROOT/<folder>/masks.",
            tuple(why for _, why in found[:MOST_EXAMPLES]),
        )


def _whole_photos(index: PatchIndex) -> Iterator[Finding]:
    whole = [patch for patch in index.patches if patch.mask is not None and patch.is_whole_photo]
    if not whole:
        return
    folders = Counter(patch.folder for patch in whole)
    yield Finding(
        "whole-photo",
        Severity.WARNING if any(count > 1 for count in folders.values()) else Severity.NOTE,
        len(whole),
        tuple(index.image_path(patch).relative_to(index.root).as_posix() for patch in whole[:MOST_EXAMPLES]),
        f"{counted(len(whole), 'labelled picture is', 'labelled pictures are')} not named "
        "<photo>_patch_<row>_<col>, so each counts as a photo of its own.",
        "If several were cut from one photo, rename them, or training and validation share ground.",
    )
