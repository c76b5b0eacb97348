"""The house: what a wheel holds, and which room may import which."""

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up; a module may import what stands before its own line. `|` parts rooms of one floor, which must not
# know each other.
FLOORS = [
    "errors classes memory replacing shell starter".split(),
    ["__init__"],
    ["network.config"],
    ["data | network | mapping.tiling mapping.raster mapping.geodesy mapping.opening mapping.stretch mapping.validity"],
    ["mapping"],
    ["evaluate | prepare"],
    ["check | change | suggest"],
    ["export | train"],
    ["project"],
    ["demo | doctor"],
    ["cli __main__"],
]


def floor_of(module: str) -> tuple[int, str]:
    """Floor and room of a module, named without the package; the longest matching name decides."""
    found: list[tuple[int, int, str]] = []
    for level, entries in enumerate(FLOORS):
        for room in " ".join(entries).split("|"):
            for name in room.split():
                if module == name or module.startswith(f"{name}."):
                    found.append((len(name), level, room))
    assert found, f"{module} stands on no floor"
    _, level, room = max(found)
    return level, room


def modules() -> dict[str, Path]:
    folders = {"": ROOT / "salakseg", "train": ROOT / "train", "evaluate": ROOT / "evaluate", "export": ROOT / "export"}
    found: dict[str, Path] = {}
    for prefix, folder in folders.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if prefix == "" and parts[0] in folders:
                continue  # the link to a mapped folder
            name = ".".join(part for part in (prefix, *parts) if part)
            found[name.removesuffix(".__init__")] = path
    return found


def imports_of(path: Path, known: set[str]) -> set[str]:
    names: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    type_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in type_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("salakseg"):
            base = node.module.removeprefix("salakseg").removeprefix(".")
            for alias in node.names:
                whole = f"{base}.{alias.name}".strip(".")
                names.add(whole if whole in known else base or "__init__")
    return names


def test_arrows_point_down() -> None:
    known = modules()
    for module, path in known.items():
        level, room = floor_of(module)
        for other in imports_of(path, set(known)):
            other_level, other_room = floor_of(other)
            assert other_level < level or other_room == room, f"{module} imports {other}"


def test_there_is_no_circle() -> None:
    known = modules()
    graph = {module: imports_of(path, set(known)) - {module} for module, path in known.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"circle: {' -> '.join((*trail, module))}"
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_names_are_given_to_files_by_who_waits_for_a_virus_scanner() -> None:
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and module != "replacing":
                of_os = ast.unparse(node.func) in ("os.replace", "os.rename", "shutil.move")
                of_path = node.func.attr in ("replace", "rename") and len(node.args) == 1 and not node.keywords
                assert not (of_os or of_path), f"{path}:{node.lineno} is not replacing.replace"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built and unpacked outside the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    # A copy without the links and without what earlier builds left behind
    source = folder / "source"
    shutil.copytree(ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(".*", "scratch", "build", "*.egg-info"))
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], check=True, capture_output=True, cwd=source)
    (wheel,) = folder.glob("salakseg-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def in_wheel(installed: Path, code: str) -> str:
    """Runs code with the unpacked wheel before everything else, far from the repository."""
    script = f"import sys; sys.path.insert(0, {str(installed)!r})\n{code}"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, cwd=installed)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_every_module_and_the_package_data(installed: Path) -> None:
    for module, path in modules().items():
        inside = installed / "salakseg" / Path(*module.split("."))
        assert inside.with_suffix(".py").is_file() or (inside / "__init__.py").is_file(), f"{module} ({path})"
    out = in_wheel(
        installed,
        "import salakseg.train.recipe as r, salakseg.evaluate.targets as t\n"
        "print(r.__file__, r.recipe_names(), t.load_target('diversenet').headline_miou)",
    )
    assert str(installed) in out
    assert "'phase3', 'phase4', 'quick', 'supervised', 'unimatch', 'unimatch2', 'v3'] 0.7" in out
    assert (installed / "salakseg" / "py.typed").is_file()
    assert (installed / "salakseg" / "starter" / "salakseg-starter" / "model.onnx").is_file()


def test_the_mapped_folders_are_no_packages_of_their_own(installed: Path) -> None:
    assert not [name for name in ("train", "evaluate", "export", "tests") if (installed / name).exists()]
    code = "import importlib.util as u\nprint([n for n in ('train', 'evaluate', 'export') if u.find_spec(n)])"
    assert in_wheel(installed, code).strip() == "[]"


def test_links_lead_to_the_mapped_folders() -> None:
    for name in ("train", "evaluate", "export"):
        link = ROOT / "salakseg" / name
        if link.is_symlink():  # a checkout without links works as well
            assert link.resolve() == ROOT / name
