"""The commands on real folders, and the page that check writes: self-contained, escaped, readable in both themes."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from helpers import Salakseg, command
from patch_sets import FIRST, FIRST_MASK, read, write
from PIL import Image

from salakseg.check.output import check_output_folder
from salakseg.errors import ReportError

if TYPE_CHECKING:
    from playwright.sync_api import Browser

THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
EVIL = "[red]<img src=x onerror=alert(1)>&'"


@pytest.fixture(scope="module")
def faulty(clean_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faults of several kinds, in a folder of a name that means something to browsers and terminals."""
    root = tmp_path_factory.mktemp("faulty") / EVIL.replace("/", "-")
    shutil.copytree(clean_set, root)
    (root / "salak-1-2").rename(root / EVIL.replace("/", "-"))
    os.remove(root / "splits.csv")
    strange = np.full((64, 64, 3), (1, 2, 3), np.uint8)
    strange[:32] = (255, 50, 50)
    write(root / FIRST_MASK, strange)
    images = sorted((root / EVIL).joinpath("images").iterdir())
    images[0].write_bytes(b"no picture")
    shutil.copy(images[5], images[6])
    write(images[7], np.zeros((64, 64, 3), np.uint8))
    write(root / EVIL / "masks" / f"{EVIL}.png", np.zeros((64, 64), np.uint8))
    (root / "class_mapping.csv").write_text(
        'class_id,class_name,class_color\n0,none,0 0 0\n1,"<b>water</b>",255 50 50\n'
        + "".join(f"{k},class [bold]{k},{9 * k} 200 {k}\n" for k in range(2, 7))
    )
    return root


def test_a_clean_folder_ends_well(root: Path) -> None:
    done = command("check", root)
    assert "Ready for training: 0 errors, 0 warnings, 1 note." in done.stdout
    assert {path.name for path in (root / "check").iterdir()} == {"check.html", "check.json"}
    again = command("check", root)  # its own folder is no data, and older files are replaced
    assert again.stdout == done.stdout


def test_errors_end_with_status_1(root: Path, tmp_path: Path) -> None:
    (root / FIRST).write_bytes((root / FIRST).read_bytes()[:300])
    done = command("check", root, "--out", tmp_path / "result", status=1)
    assert "Not ready for training: 1 error" in done.stdout and FIRST in done.stdout
    assert not (root / "check").exists()
    found = json.loads((tmp_path / "result" / "check.json").read_text(encoding="utf-8"))
    assert found["errors"] == 1 and found["findings"][0]["kind"] == "unreadable-picture"


def test_json_on_stdout_is_the_file(faulty: Path, tmp_path: Path) -> None:
    done = command("check", faulty, "--json", "--out", tmp_path, status=1)
    told = json.loads(done.stdout)
    assert told == json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))
    assert set(told) == {
        "schema", "root", "class_mapping", "classes", "splits", "patches", "labelled", "photos", "looked_at",
        "is_sample", "errors", "warnings", "notes", "findings", "folders", "parts",
    }  # fmt: skip
    kinds = {finding["kind"] for finding in told["findings"]}
    assert {"unreadable-picture", "unknown-colour", "duplicate", "constant", "orphan-mask"} <= kinds
    for finding in told["findings"]:
        assert set(finding) == {"kind", "severity", "count", "message", "remedy", "examples"}
        for example in finding["examples"]:
            assert set(example) == {"path", "detail", "other"}
    assert sum(told[f"{severity}s"] for severity in ("error", "warning", "note")) == len(told["findings"])


def test_a_sample(root: Path) -> None:
    done = command("check", root, "--sample", 30)
    assert "in a sample of 30 patches" in " ".join(done.stdout.split())
    assert json.loads((root / "check" / "check.json").read_text(encoding="utf-8"))["looked_at"] == 30


def test_the_project_names_the_folder_and_the_gap(root: Path) -> None:
    lines = (root / "splits.csv").read_text().replace("gap", "labelled").splitlines()
    (root / "splits.csv").write_text("\n".join(lines))
    project = root.parent / "salakseg.toml"
    project.write_text(f"data_root = '{root.name}'\n")
    assert "within 3 numbers" in " ".join(command("check", cwd=root.parent).stdout.split())
    project.write_text(f"data_root = '{root.name}'\n[recipe.data]\ngap = 0\n")
    assert "numbers of a photo" not in " ".join(command("check", cwd=root.parent).stdout.split())


def test_what_cannot_be_done_is_one_sentence(root: Path, tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        return " ".join(command(*arguments, status=1, cwd=tmp_path).output.split())

    assert "Name their folder, or data_root in salakseg.toml" in refused("check")
    assert "is no folder" in refused("check", tmp_path / "nowhere")
    assert "does not exist; name the file with the split" in refused("check", root, "--splits", "gone.csv")
    assert "does not exist; name the class mapping" in refused("stats", root, "--class-mapping", "gone.csv")
    (root / "check").write_text("a file")
    assert "name another folder with --out" in refused("check", root)
    (tmp_path / "taken" / "check.html").mkdir(parents=True)
    with pytest.raises(ReportError, match=r"check\.html is a folder"):
        check_output_folder(tmp_path / "taken")


def test_the_real_command_shows_help_without_the_heavy_libraries(salakseg: Salakseg, root: Path) -> None:
    assert "--sample" in salakseg("check", "--help").stdout
    assert salakseg("check", root).returncode == 0


def test_names_are_never_markup_on_the_terminal(faulty: Path, tmp_path: Path) -> None:
    told = "".join(command("check", faulty, "--out", tmp_path, status=1).stdout.split())
    assert "[red]<imgsrc=xonerror=alert(1)>&'" in told


def page_of(root: Path, folder: Path) -> str:
    command("check", root, "--out", folder, status=1)
    return (folder / "check.html").read_text(encoding="utf-8")


def test_the_page_escapes_names_and_needs_nothing_else(faulty: Path, tmp_path: Path) -> None:
    page = page_of(faulty, tmp_path)
    assert "<img src=x" not in page and "<b>water" not in page
    assert "&lt;img src=x" in page and "&lt;b&gt;water" in page
    assert (
        "<script" not in page
        and "@import" not in page
        and not re.search(r"\son\w+=", re.sub(r">[^<]*<", "><", page).replace("onerror=alert", ""))
    )
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert page.count("<img ") > 5 and "default-src 'none'" in page


def test_the_page_shows_what_was_found(faulty: Path, tmp_path: Path) -> None:
    page = page_of(faulty, tmp_path)
    found = json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))
    for finding in found["findings"]:
        assert f'id="{finding["kind"]}"' in page and f'href="#{finding["kind"]}"' in page
    assert page.count('<article class="finding') == len(found["findings"])


@pytest.mark.parametrize("width", [380, 1000])
def test_the_page_in_a_browser(faulty: Path, tmp_path: Path, browser: "Browser", width: int) -> None:
    page_of(faulty, tmp_path)
    light, dark = (ground_of(browser, tmp_path / "check.html", width, theme) for theme in THEMES)
    assert light != dark


def ground_of(browser: "Browser", path: Path, width: int, theme: Literal["light", "dark"]) -> str:
    """Colour of the page's ground; nothing may have gone wrong, been fetched, or stick out."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=theme)
    page = context.new_page()
    said: list[str] = []
    fetched: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: fetched.append(request.url))
    page.goto(path.as_uri())
    assert said == [] and [url for url in fetched if not url.startswith("data:")] == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    ground: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    context.close()
    return ground


def test_odd_pictures_are_shown_as_far_as_they_can(root: Path, tmp_path: Path) -> None:
    deep = read(root / FIRST)[..., 0].astype(np.uint16) * 256
    Image.fromarray(deep).save(root / FIRST)
    page = page_of(root, tmp_path / "out")
    article = page.partition('id="deep-picture"')[2].partition("</article>")[0]
    assert "data:image/jpeg" in article
