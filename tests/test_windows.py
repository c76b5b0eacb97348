"""What a Windows machine does otherwise, as far as it can be shown on another system."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import rasterio
from helpers import TINY, command, write_scene

from salakseg.data.patches import index_patches
from salakseg.data.splits import read_split
from salakseg.network.checkpoint import load_checkpoint

SPAWNED = """
import multiprocessing
from pathlib import Path
from salakseg.cli.main import main

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
else:  # a worker that was spawned imports this file again
    Path("spawned.txt").touch()
"""


def test_a_run_whose_workers_are_spawned_learns_what_any_other_does(plantation: Path, tmp_path: Path) -> None:
    """Self-training included, which has a second stream of patches."""
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED, encoding="utf-8")
    states = []
    for name, workers, start in (("spawned", 2, [script]), ("alone", 0, ["-m", "salakseg"])):
        data = shutil.copytree(plantation, tmp_path / name / "patches")
        run = tmp_path / name / "run"
        words = ["train", "--phase", 2, "--data-root", data, "--checkpoint-dir", run, "--num-steps", 5, *TINY]
        words += ["--set", f"data.workers={workers}", "--device", "cpu"]
        done = subprocess.run(
            [sys.executable, *map(str, [*start, *words])], capture_output=True, text=True, timeout=300, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        states.append(load_checkpoint(run / "checkpoints" / "last.pt").student)
    assert (tmp_path / "spawned.txt").is_file()
    assert states[0].keys() == states[1].keys()
    assert all(bool((states[0][key] == states[1][key]).all()) for key in states[0])


ALL_IN_ONE = """
import json, sys
from salakseg.cli.main import main

for words in json.loads(sys.stdin.buffer.read()):
    sys.argv = ["salakseg", *words]
    try:
        main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"{words[0]}: {end.code}")
"""

FOREIGN = ("Air", "Rumah", "Jalan", "ꦥꦺꦴꦲꦺꦴꦤ꧀", "Салак ✓", "Tanah")  # Javanese and Cyrillic, of which cp1252 has nothing


def test_names_that_the_terminal_has_no_letters_for_cost_no_result(plantation: Path, tmp_path: Path) -> None:
    data = shutil.copytree(plantation, tmp_path / "patches")
    mapping = tmp_path / "class_mapping.csv"
    rows = [f"{name},{40 * number} 9 9" for number, name in enumerate(FOREIGN, start=1)]
    mapping.write_text("\n".join(["class_name,class_color", "__background__,0 0 0", *rows, ""]), encoding="utf-8")
    run, map_file = tmp_path / "läufe" / "run", tmp_path / "map.tif"
    scene = write_scene(tmp_path / "scene.tif", 90, 110)
    best, classes = run / "checkpoints" / "best.pt", ["--class-mapping", mapping]
    commands = [
        ["check", data, *classes],
        ["stats", data, *classes],
        ["train", "--phase", 2, "--data-root", data, *classes, "--checkpoint-dir", run, "--num-steps", 4, *TINY],
        ["splits", "show", data],
        ["runs", tmp_path / "läufe"],
        ["info", best],
        ["report", best, "--split", "val"],
        ["predict", scene, "--model", best, "--gsd", 0.05, "--out", map_file],
    ]
    done = subprocess.run(
        [sys.executable, "-c", ALL_IN_ONE],
        input=json.dumps([[str(word) for word in words] for words in commands]).encode(),
        capture_output=True,
        cwd=tmp_path,
        timeout=500,
        env=os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
    )
    told = done.stdout.decode("cp1252") + done.stderr.decode("cp1252")
    assert done.returncode == 0, told
    assert "Rumah" in told and "????? ?" in told  # the name in Cyrillic, as far as it goes
    assert map_file.is_file()
    stored = json.loads((run / "report-val" / "report.json").read_text(encoding="utf-8"))
    assert "Салак ✓" in json.dumps(stored, ensure_ascii=False)


def test_drive_letters_and_backslashes_are_plain_text_and_a_split_may_come_from_a_spreadsheet(
    plantation: Path, tmp_path: Path
) -> None:
    """The root bears a Windows path as its name; its split and class mapping were saved with a BOM and CR LF."""
    data = shutil.copytree(plantation, tmp_path / r"D:\salak\patches")
    command("splits", "make", data, "--gap", 0, "--overwrite")  # others may have trained on these patches
    split = (data / "splits.csv").read_text(encoding="utf-8")
    (data / "splits.csv").write_bytes(split.replace("\n", "\r\n").encode("utf-8-sig"))
    run = tmp_path / r"D:\runs\first"
    words = ["--data-root", data, "--checkpoint-dir", run, "--device", "cpu", *TINY]
    command("train", "--phase", 2, "--num-steps", 4, *words)
    best = run / "checkpoints" / "best.pt"
    assert Path(load_checkpoint(best).data_root) == data.resolve()
    roles = {place: read_split(place / "splits.csv", index_patches(data)).roles for place in (data, run)}
    assert roles[data] == roles[run]
    command("check", data)
    command("report", run, "--split", "val")
    assert (run / "report-val" / "report.html").is_file()
    map_file = tmp_path / r"D:\maps\map.tif"
    command(
        "predict", write_scene(tmp_path / r"D:\scene.tif", 90, 110), "--model", best, "--out", map_file, "--gsd", 0.05
    )
    with rasterio.open(map_file) as dataset:
        assert dataset.shape == (90, 110)
