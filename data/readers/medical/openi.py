"""Open-i's XML of the Indiana chest X-rays: one report a file, with sections and the names of its images.

A folder of ``*.xml`` (in it or in one folder of it, as ``ecgen-radiology/``), and the images anywhere below it (or
below ``image_root``). The views of images are not in these files, except where an image's caption is one, so all images
of a report are kept in order: five at most, which ``max_views`` has to allow. Authors, affiliations and all else in the
files is never read into an example.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from latentcap.data.readers.fields import ReadOptions
from latentcap.data.readers.formats import Format
from latentcap.data.readers.medical.indiana import hashed_split, image_key, index_images, labels_of
from latentcap.data.readers.medical.patient import age_in_text, sex_in_text
from latentcap.data.readers.medical.study import context_of, one_of_each_view, report_of

MARK = b"<AbstractText"
SECTIONS = ("findings", "impression", "indication", "comparison")
VIEW_CAPTIONS = {"pa": "pa", "ap": "ap", "frontal": "frontal", "lateral": "lateral"}


def find_reports(folder: Path) -> list[Path]:
    """The XML files in ``folder``, or else in the folders in it, if the first is a report."""
    files = sorted(folder.glob("*.xml")) or sorted(folder.glob("*/*.xml"))
    return files if files and _is_report(files[0]) else []


def read_openi(path: Path, options: ReadOptions) -> list[Example]:
    """Every report that has an image, in the order of its number. Raises UserError for a file that is no XML."""
    files = find_reports(path) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no .xml reports of Open-i in it (files with <AbstractText Label=...>).")
    root = options.image_root or (path if path.is_dir() else path.parent)
    images = index_images(root)
    files.sort(key=lambda file: (int(file.stem) if file.stem.isdigit() else 0, file.name))
    read = (_read(file, images, root, options.fields.report) for file in files)
    examples = []
    for example in read:
        if example.images:
            examples.append(example)
        else:
            options.skip(example.id, "a report without an image", expected=True)
    return examples


def _read(file: Path, images: dict[str, str], root: Path, target: str) -> Example:
    try:
        report = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        raise UserError(f"{file}, line {error.position[0]}: not valid XML (column {error.position[1]}).") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}).") from None
    sections = {(part.get("Label") or "").lower(): part.text for part in report.iter("AbstractText")}
    uid = report.find("uId")
    name = (uid.get("id") if uid is not None else None) or f"CXR{file.stem}"
    refs, views, captions = [], [], []
    for image in report.iter("parentImage"):
        id = image.get("id") or ""
        caption = (image.findtext("caption") or "").strip().lower()
        captions.append(caption)
        refs.append(ImageRef(images.get(image_key(id)) or str(root / f"{id}.png")))
        views.append(VIEW_CAPTIONS.get(caption, ""))
    if all(views):
        chosen, named = one_of_each_view(zip(views, refs, strict=True))
    else:
        chosen, named = tuple(refs), ()
    exam = next((caption for caption in captions if caption and caption not in VIEW_CAPTIONS), None)
    terms = [term.text or "" for term in report.iterfind(".//MeSH/major")]
    return Example(
        id=name,
        images=chosen,
        views=named,
        captions=report_of({name: sections.get(name) for name in SECTIONS}, target),
        context=context_of(indication=sections.get("indication"), exam=exam),
        numbers={"age": age_in_text(sections.get("indication"))},
        categories={"sex": sex_in_text(sections.get("indication"))},
        split=hashed_split(name.removeprefix("CXR")),
        labels=labels_of(";".join(terms) or None),
        group=name,
    )


def _is_report(file: Path) -> bool:
    try:
        with open(file, "rb") as content:
            return MARK in content.read(200_000)
    except OSError:
        return False


FORMAT = Format("openi", read_openi, find_reports, kind="", looked_for="Open-i's XML", medical=True)
