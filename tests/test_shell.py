"""Paths in commands that messages tell to type."""

import shlex
from pathlib import Path

import pytest

from salakseg.shell import as_argument


@pytest.mark.parametrize("path", ["runs/v3", "My Maps/orto (1).tif", "it's", "a;b", "$HOME", "Kebun \u00e9"])
def test_a_shell_reads_one_argument(path: str) -> None:
    assert shlex.split(as_argument(Path(path))) == [path]
    assert as_argument("runs/v3-2.0/checkpoints/best.pt") == "runs/v3-2.0/checkpoints/best.pt"


@pytest.mark.parametrize(
    ("path", "typed"),
    [("C:\\runs\\v3", "C:\\runs\\v3"), ("C:\\My Maps\\a.tif", '"C:\\My Maps\\a.tif"'), ("a&b", '"a&b"')],
)
def test_windows_takes_double_quotes(path: str, typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("salakseg.shell.os.name", "nt")
    assert as_argument(path) == typed
