"""``environment.json``: what a run was made with, so that it can be made again; and what is different when it goes on.

Everything is cheap: the fingerprint of the data is of names and sizes, which directory listings tell, not of pixels.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import torch

import salakseg
from salakseg.data.patches import PatchIndex
from salakseg.network.checkpoint import package_versions
from salakseg.train.recipe import Recipe

_GIT_SECONDS = 10
_NO_ALGORITHM = "does not have a deterministic implementation"


def environment(recipe: Recipe, index: PatchIndex, device: torch.device) -> dict[str, Any]:
    """What decides about a result beside the recipe, as plain values.

    Returns:
        ``command``, ``time`` (ISO 8601, UTC), ``python``, ``platform``, ``device`` and ``device_name``, ``threads``,
        ``seed``, ``deterministic``, ``versions``; ``git``: state of the current folder and of the package, each None
        where there is none (see `git_state`); ``data``: root, number of patches and of labelled ones, fingerprint
        (see `data_fingerprint`), and that of the pack if pixels are read from one.
    """
    package = Path(salakseg.__file__).parent
    return {
        "command": sys.argv,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "seed": recipe.seed,
        "deterministic": recipe.performance.deterministic,
        "versions": package_versions(),
        "git": {"folder": git_state(Path.cwd()), "salakseg": git_state(package, tracked="__init__.py")},
        "data": {
            "root": str(index.root.resolve()),
            "patches": len(index.patches),
            "labelled": index.labelled_count,
            "fingerprint": data_fingerprint(index),
            "pack": getattr(index.pack, "fingerprint", None),
        },
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What changed in between, a clause for each; time and command do not count."""
    found = []
    old_data, new_data = _table(before, "data"), _table(now, "data")
    if old_data.get("fingerprint") not in (None, new_data["fingerprint"]):
        found.append("the names or sizes of the patches")
    old, new = _table(before, "versions"), _table(now, "versions")
    found += [f"{name} ({old[name]}, now {new[name]})" for name in new if name in old and old[name] != new[name]]
    for key in ("python", "platform", "device", "device_name", "threads"):
        if key in before and before[key] != now[key]:
            found.append(f"{key} ({before[key]}, now {now[key]})")
    for key, name in (("folder", "this folder"), ("salakseg", "salakseg's code")):
        commits = [_table(_table(place, "git"), key).get("commit") for place in (before, now)]
        if None not in commits and commits[0] != commits[1]:
            found.append(f"the commit of {name} ({str(commits[0])[:9]}, now {str(commits[1])[:9]})")
    return found


def data_fingerprint(index: PatchIndex) -> str:
    """SHA-256 over the name and size of every picture and mask of an index, as hexadecimal text.

    Sizes come from the listings of the folders: seconds for half a million files. A file that changed but kept its size
    is not noticed.
    """
    digest = hashlib.sha256()
    sizes: dict[str, tuple[dict[str, int], dict[str, int]]] = {}
    for patch in index.patches:
        if patch.folder not in sizes:
            folder = index.root / patch.folder
            sizes[patch.folder] = _sizes(folder / "images"), _sizes(folder / "masks")
        images, masks = sizes[patch.folder]
        mask = None if patch.mask is None else masks.get(patch.mask)
        digest.update(f"{patch.folder}\0{patch.image}\0{images.get(patch.image)}\0{patch.mask}\0{mask}\n".encode())
    return digest.hexdigest()


def git_state(folder: Path, tracked: str | None = None) -> dict[str, Any] | None:
    """The commit of a folder's repository.

    Args:
        folder: A folder in it.
        tracked: A file in the folder that must belong to the repository, or there is none: packages are often
            installed below somebody else's.

    Returns:
        ``commit``, ``branch`` (None if detached) and ``changed``, whether files that git knows differ from the commit;
        None where there is no repository or no git.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None or (tracked is not None and _git(folder, "ls-files", "--error-unmatch", tracked) is None):
        return None
    branch = _git(folder, "symbolic-ref", "--short", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")  # a folder of patches is long to list
    return {"commit": commit, "branch": branch, "changed": None if changes is None else bool(changes)}


def read_environment(path: Path) -> dict[str, Any] | None:
    """The content of an ``environment.json``; None if it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


@contextmanager
def determinism(wanted: bool, say: Callable[[str], None]) -> Iterator[None]:
    """Lets torch choose algorithms that give the same bits every time, while it is entered.

    Where an operation has none, the run goes on and says once which one it is. On a CPU the number of threads decides
    about rounding, too; it is kept in ``environment.json``.

    Args:
        wanted: Whether to do so; else nothing changes.
        say: Called with a line for each operation without such an algorithm.
    """
    if not wanted:
        yield
        return
    told: set[str] = set()
    show = warnings.showwarning

    def showwarning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = str(message)
        if _NO_ALGORITHM not in text:
            show(message, category, filename, lineno, file, line)
        elif (name := text.split(_NO_ALGORITHM)[0].strip()) not in told:
            told.add(name)
            say(f"attention: {name} has no deterministic algorithm on this device; runs may differ by its rounding")

    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for, before its first use
    torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.deterministic, cudnn.benchmark = True, False
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=f".*{_NO_ALGORITHM}")
        warnings.showwarning = showwarning
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            cudnn.deterministic, cudnn.benchmark = flags


def _sizes(folder: Path) -> dict[str, int]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries}
    except OSError:
        return {}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, encoding="utf-8", errors="replace", timeout=_GIT_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _table(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    table = values.get(key)
    return table if isinstance(table, Mapping) else {}
