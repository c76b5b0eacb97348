"""What is said: paths in commands that messages tell to type, and terminals that are gone."""

import shlex

import pytest

from salakseg.cli.console import progress_bar, say
from salakseg.shell import as_argument


@pytest.mark.parametrize("path", ["runs/v3", "My Maps/orto (1).tif", "it's", "a;b", "$HOME", "Kebun \u00e9"])
def test_a_shell_reads_one_argument(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("salakseg.shell.os.name", "posix")
    assert shlex.split(as_argument(path)) == [path]
    assert as_argument("runs/v3-2.0/checkpoints/best.pt") == "runs/v3-2.0/checkpoints/best.pt"


class Dead:
    """A stream whose terminal is closed."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")

    def flush(self) -> None:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("stream", [Dead(), None], ids=["closed", "none"])
def test_a_dead_terminal_ends_nothing(stream: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", stream)
    say("a line")
    with progress_bar("work", "steps") as progress:
        progress(1, 2)


@pytest.mark.parametrize(
    ("path", "typed"),
    [("C:\\runs\\v3", "C:\\runs\\v3"), ("C:\\My Maps\\a.tif", '"C:\\My Maps\\a.tif"'), ("a&b", '"a&b"')],
)
def test_windows_takes_double_quotes(path: str, typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("salakseg.shell.os.name", "nt")
    assert as_argument(path) == typed
