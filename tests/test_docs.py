"""Links in the documents lead somewhere, the map of the house shows the house, and tables and their CSV files agree."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "configs" / "README.md", *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{page.name} links to {target}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in headings]
            assert heading in slugs, f"{page.name} links to {target}"


def test_the_map_shows_every_folder() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = text.split("## The map")[1].split("```")[1].strip().splitlines()
    named = {line.split()[0].rstrip("/") for line in lines}
    for name in named:
        assert (ROOT / name).exists(), name
    folders = {f"{top}/{path.name}" for top in ("pipeline", "data") for path in (ROOT / top).iterdir() if path.is_dir()}
    assert {folder for folder in folders if list((ROOT / folder).glob("*.py"))} <= named


@pytest.mark.parametrize("table", sorted((ROOT / "docs" / "results").glob("*.csv")), ids=lambda table: table.stem)
def test_a_csv_file_is_a_table_of_its_page(table: Path) -> None:
    page = max(
        (page for page in table.parent.glob("*.md") if table.stem.startswith(page.stem)),
        key=lambda page: len(page.stem),
    )
    shown = []
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            shown.append([cell.strip().replace("**", "").replace("`", "") for cell in cells])
    with open(table, encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            assert row in shown, row
