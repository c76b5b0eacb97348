"""Rendering a map on a Dask cluster: the same sections as at home, on many machines.

Workers need nothing but the orthomosaic and the model files under the same paths as here; the stripes come back over
the network and are written by this process alone. A worker that dies changes nothing: its sections go to another.
"""

import logging
import os
import platform
import re
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from rasterio.errors import RasterioError

from salakseg import __version__
from salakseg.errors import ClusterError, RasterError, SalaksegError
from salakseg.mapping.files import put_bytes
from salakseg.mapping.plan import Section
from salakseg.mapping.raster import Orthomosaic, gdal_settings
from salakseg.mapping.render import Job, render_section
from salakseg.mapping.runner import Advance
from salakseg.mapping.stripes import StripeFolder
from salakseg.memory import give_back_memory
from salakseg.network.digest import sha256_of
from salakseg.network.engine import Engine
from salakseg.network.opening import EngineSpec, open_engine

MOST_STRIPES = 8
"""In a section. Each infers a row of tiles of the one above again, an eighth more at this height."""

LEAST_STRIPES = 2
"""In a section, however many workers wait: alone, a stripe would infer every row of tiles twice."""

SECTIONS_A_WORKER = 2
"""Where there are enough stripes: the last worker to finish keeps the others waiting for less."""

WAITING_A_WORKER = 2
"""Sections handed out: one to work on, one to go on with."""

_PATIENCE_S = 30


@contextmanager
def connect(scheduler: str | None, workers: int | None) -> Iterator[Any]:
    """A client of a running cluster, or of one on this machine that ends with the context.

    Args:
        scheduler: Address of the scheduler, such as ``tcp://host:8786``; None starts a cluster here.
        workers: Processes of the cluster that is started here.

    Yields:
        A `distributed.Client` with at least one worker.

    Raises:
        ClusterError: Dask is not installed, the scheduler does not answer, or it has no workers that fit.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ClusterError("a cluster needs Dask; install it with `pip install 'salakseg[cluster]'`.") from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # whatever goes wrong comes back as an error
    if scheduler is None:
        with (
            _same_environment(),
            LocalCluster(
                n_workers=workers or 1, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
            ) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client
        return
    if not re.fullmatch(r"(tcp|tls|ws|wss|ucx)://[^/]+:\d+", scheduler):
        raise ClusterError(f"{scheduler} is no address of a scheduler; it looks like tcp://192.168.1.10:8786.")
    try:
        client = Client(scheduler, timeout=_PATIENCE_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise ClusterError(
            f"{scheduler} does not answer; is `dask scheduler` running there, and its port reachable?"
        ) from error
    with client:
        _check_workers(client, scheduler)
        yield client


@contextmanager
def _same_environment() -> Iterator[None]:
    """Dask tells its processes to use one thread by way of our own environment, and leaves it so."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _check_workers(client: Any, scheduler: str) -> None:  # noqa: ANN401
    try:
        client.wait_for_workers(1, timeout=_PATIENCE_S)
    except TimeoutError as error:
        raise ClusterError(f"{scheduler} has no workers; start some with `dask worker {scheduler}`.") from error
    try:
        versions = client.run(_version)
    except Exception as error:  # whatever a foreign environment raises
        raise ClusterError(
            f"the workers of {scheduler} cannot import salakseg ({error}); install salakseg[cluster] on each."
        ) from error
    for worker, found in versions.items():
        if found != __version__:
            raise ClusterError(
                f"{worker} has salakseg {found} and this machine {__version__}; install the same on both."
            )


def _version() -> str:
    return __version__


class OnCluster:
    """Renders on the workers of a cluster.

    Args:
        client: A connected `distributed.Client`.
        spec: How each worker opens the model, once.
    """

    def __init__(self, client: Any, spec: EngineSpec) -> None:  # noqa: ANN401
        self._client = client
        models = tuple(
            replace(model, path=model.path.absolute(), sha256=sha256_of(model.path)) for model in spec.models
        )
        self._spec = replace(spec, models=models)

    def cut(self, sections: list[Section]) -> list[Section]:
        """Cuts long sections, so that every worker has some and little is lost with one."""
        stripes = sum(section.stop - section.start for section in sections)
        share = -(-stripes // (SECTIONS_A_WORKER * self._workers()))
        height = max(LEAST_STRIPES, min(MOST_STRIPES, share))
        return [
            Section(section.panel, start, min(start + height, section.stop))
            for section in sections
            for start in range(section.start, section.stop, height)
        ]

    def run(self, job: Job, sections: list[Section], folder: StripeFolder, advance: Advance) -> None:
        """Makes all stripes of the sections; a few are on their way at any time, so that memory stays bounded here."""
        from distributed import as_completed

        job = replace(job, source=job.source.absolute())
        waiting = iter(sections)
        done = as_completed(loop=self._client.loop)
        for section in islice(waiting, WAITING_A_WORKER * self._workers()):
            done.add(self._submit(job, section))
        for future in done:
            rendered = _result(future, job)
            rendered.write(folder.path)
            advance(rendered.section, 1.0, rendered.tiles_run, rendered.tiles_skipped)
            future.release()
            for section in islice(waiting, 1):
                done.add(self._submit(job, section))

    def _submit(self, job: Job, section: Section) -> Any:  # noqa: ANN401
        return self._client.submit(render_remotely, job, section, self._spec, pure=False)

    def _workers(self) -> int:
        return max(1, len(self._client.nthreads()))


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a worker sends back.

    Attributes:
        section: What was asked for.
        files: Names and contents, in the order in which they are to be written.
        tiles_run: Tiles that the model saw.
        tiles_skipped: Tiles without a valid pixel.
    """

    section: Section
    files: tuple[tuple[str, bytes], ...]
    tiles_run: int
    tiles_skipped: int

    def write(self, folder: Path) -> None:
        """Writes the files; those that say that a stripe is whole come last."""
        for name, content in self.files:
            put_bytes(folder / name, content)


def _result(future: Any, job: Job) -> Rendered:  # noqa: ANN401
    from distributed import KilledWorker

    kept = "What is finished is kept: go on with --resume."
    try:
        rendered: Rendered = future.result()
    except KilledWorker as error:
        raise ClusterError(
            f"workers keep dying while they map {job.source} ({error}); have they enough memory? {kept}"
        ) from error
    except (CancelledError, OSError, TimeoutError) as error:
        raise ClusterError(f"the scheduler was lost while {job.source} was mapped ({error}). {kept}") from error
    return rendered


_ONE_AT_A_TIME = threading.Lock()
"""A worker with several threads still has one model, and memory for one section."""


def render_remotely(job: Job, section: Section, spec: EngineSpec) -> Rendered:
    """Renders a section on a worker.

    Raises:
        SalaksegError: As `render_section`; the message names the machine.
    """
    tiles = [0, 0]

    def report(seen: bool) -> None:
        tiles[seen] += 1

    failure: SalaksegError | None = None
    try:
        with _ONE_AT_A_TIME, gdal_settings(), tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with Orthomosaic(job.source, job.options) as orthomosaic:
                render_section(job, section, _engine(spec), orthomosaic, folder, report)
            files = sorted(folder.iterdir(), key=lambda path: (path.suffix == ".json", path.name))
            content = tuple((path.name, path.read_bytes()) for path in files)
        give_back_memory()
    except (OSError, RasterioError) as error:
        failure = RasterError(
            f"{platform.node()}: {job.source} could not be mapped there ({error}); has {tempfile.gettempdir()} room?"
        )
    except SalaksegError as error:
        failure = type(error)(f"{platform.node()}: {error}")
    if failure is not None:  # raised here, it has no GDAL error as its cause: those do not survive the journey
        raise failure
    return Rendered(section, content, tiles[True], tiles[False])


@lru_cache(maxsize=1)
def _engine(spec: EngineSpec) -> Engine:
    return open_engine(spec)
