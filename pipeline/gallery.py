"""Captions beside their images as one self-contained HTML file: no network, no server, nothing to install."""

from __future__ import annotations

import base64
import html
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from data.example import ImageRef, to_rgb

_SURROGATES = re.compile("[\ud800-\udfff]")


def write_gallery(path: str | Path, records: Iterable[Mapping[str, Any]], *, title: str, thumbnails: int = 160) -> Path:
    """Write a page with a card for each record: thumbnail, caption and what else is known, to search and to sort.

    Records are read one at a time and written at once to a temporary file beside ``path``, which takes its place at the
    end; an interrupted run leaves an existing gallery as it was.

    Args:
        path: the HTML file to write; its folder is created where missing.
        records: mappings with ``file`` and ``caption`` and, where known, ``score`` (a number), ``references`` (a list
            of texts), ``context`` (a text), ``error`` (a text) and ``image`` (a PIL image; opened from ``file`` where
            absent). An image that cannot be opened is shown as an error on its card.
        title: heading of the page.
        thumbnails: longest side of the embedded images in pixels.

    Returns:
        The path written.

    Raises:
        OSError: where ``path`` cannot be written.
    """
    target = Path(path)
    unfinished = target.with_name(target.name + ".part")
    head = _HEAD.replace("{title}", _text(title)).replace("{width}", str(max(180, thumbnails + 40)))
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(unfinished, "w", encoding="utf-8") as file:
            file.write(head)
            for record in records:
                file.write(_card(record, thumbnails))
            file.write(_FOOT)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def _text(value: object) -> str:
    """Escaped for text and quoted attributes; bytes that are not UTF-8 become the replacement character."""
    return html.escape(_SURROGATES.sub("\ufffd", str(value)))


def _card(record: Mapping[str, Any], thumbnails: int) -> str:
    """One record as an ``<li>``."""
    file, caption = _text(record["file"]), _text(record["caption"])
    score, context, error = record.get("score"), record.get("context"), record.get("error")
    picture = '<div class="blank" aria-hidden="true">no image</div>'
    try:
        image = record.get("image")
        source = _thumbnail(ImageRef(record["file"]).open() if image is None else to_rgb(image), thumbnails)
        picture = f'<img src="{source}" alt="{caption or file}" loading="lazy" decoding="async">'
    except OSError as failure:
        error = error or failure.strerror or failure
    parts = [f'<li class="card{" failed" if error else ""}" data-file="{file}"']
    parts.append("" if score is None else f' data-score="{float(score):.6g}"')
    parts.append(f'><div class="picture">{picture}')
    parts.append("" if score is None else f'<span class="score" title="score">{float(score):.3f}</span>')
    parts.append('</div><div class="words">')
    if context:
        parts.append(f'<p class="context" dir="auto"><span class="label">context</span> {_text(context)}</p>')
    if caption:
        parts.append(f'<p class="caption" dir="auto">{caption}</p>')
    if error:
        parts.append(f'<p class="error"><span class="label">error</span> {_text(error)}</p>')
    parts.append(_references(record.get("references") or ()))
    parts.append(f'<p class="file" title="{file}">{file}</p></div></li>\n')
    return "".join(parts)


def _references(references: Sequence[str]) -> str:
    if not references:
        return ""
    items = "".join(f'<li dir="auto">{_text(reference)}</li>' for reference in references)
    noun = "reference" if len(references) == 1 else "references"
    return f"<details><summary>{len(references)} {noun}</summary><ul>{items}</ul></details>"


def _thumbnail(image: Image.Image, side: int) -> str:
    """The image, at most ``side`` pixels wide and high, as a JPEG data URI."""
    image.thumbnail((side, side))
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")


_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root { --page: #f6f6f4; --card: #fff; --well: #ececea; --ink: #1c1d1f; --soft: #66696f; --line: #dfdfdc;
  --accent: #2458c6; --bad: #b3261e; --width: {width}px; }
@media (prefers-color-scheme: dark) { :root { --page: #131416; --card: #1c1e21; --well: #26282c; --ink: #e9e9e7;
  --soft: #9fa3aa; --line: #303338; --accent: #8fb2ff; --bad: #ff8a80; } }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.45 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", sans-serif; }
header { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: 10px 14px; align-items: center;
  padding: 14px clamp(14px, 3vw, 36px); background: var(--page); border-bottom: 1px solid var(--line); }
h1 { margin: 0; font-size: 18px; font-weight: 650; letter-spacing: -.01em; overflow-wrap: anywhere; }
output { color: var(--soft); margin-right: auto; font-variant-numeric: tabular-nums; }
input, select { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: 7px 11px; min-height: 38px; }
input { width: min(280px, 100%); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
#cards { list-style: none; margin: 0; padding: 20px clamp(14px, 3vw, 36px) 60px; display: grid; gap: 18px;
  grid-template-columns: repeat(auto-fill, minmax(min(var(--width), 100%), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; overflow: hidden; display: flex;
  flex-direction: column; content-visibility: auto; contain-intrinsic-size: auto var(--width) auto 320px; }
.picture { position: relative; aspect-ratio: 1; background: var(--well); }
.picture img { width: 100%; height: 100%; object-fit: contain; display: block; }
.blank { height: 100%; display: grid; place-items: center; color: var(--soft); font-size: 13px; }
.score { position: absolute; top: 8px; right: 8px; padding: 1px 8px; border-radius: 99px; font-size: 12.5px;
  background: rgb(0 0 0 / .62); color: #fff; font-variant-numeric: tabular-nums; }
.words { padding: 12px 14px 11px; display: flex; flex-direction: column; gap: 7px; flex: 1; overflow-wrap: anywhere; }
.words p { margin: 0; }
.caption { font-weight: 500; }
.context { color: var(--soft); font-size: 13.5px; }
.label { color: var(--accent); font-size: 11px; font-weight: 600; letter-spacing: .04em; text-transform: uppercase;
  margin-right: 3px; }
.error, .error .label { color: var(--bad); font-size: 13.5px; }
.error .label { font-size: 11px; }
.failed { border-color: var(--bad); }
details { font-size: 13.5px; color: var(--soft); }
summary { cursor: pointer; width: fit-content; border-radius: 4px; }
details ul { margin: 5px 0 0; padding-left: 18px; }
.words .file { margin-top: auto; padding-top: 3px; color: var(--soft); font: 12px/1.4 ui-monospace, "SF Mono", Menlo,
  Consolas, monospace; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
@media (max-width: 520px) { :root { --width: 150px; } #cards { gap: 12px; } input { flex: 1; min-width: 0; }
  .words { padding: 10px 11px 9px; } output { margin-right: 0; width: 100%; margin-top: -8px; } }
@media print { header { position: static; } .card { content-visibility: visible; break-inside: avoid; } }
</style>
</head>
<body>
<header>
<h1>{title}</h1>
<output id="count" for="search" aria-live="polite"></output>
<label class="unseen" for="search">Search captions, files and errors</label>
<input id="search" type="search" placeholder="Search  ( / )" autocomplete="off" spellcheck="false">
<label class="unseen" for="sort">Sort by</label>
<select id="sort">
<option value="given">As written</option>
<option value="file">File name</option>
<option value="best" class="scored">Highest score</option>
<option value="worst" class="scored">Lowest score</option>
</select>
</header>
<main><ul id="cards">
"""

_FOOT = """</ul></main>
<script>
const list = document.getElementById("cards"), cards = [...list.children];
const search = document.getElementById("search"), sort = document.getElementById("sort");
const texts = cards.map(card => card.textContent.toLowerCase());
const total = cards.length.toLocaleString("en");
const score = (card, missing) => "score" in card.dataset ? Number(card.dataset.score) : missing;
const orders = {
  file: (a, b) => a.dataset.file.localeCompare(b.dataset.file, "en", {numeric: true}),
  best: (a, b) => score(b, -Infinity) - score(a, -Infinity) || 0,
  worst: (a, b) => score(a, Infinity) - score(b, Infinity) || 0,
};
function filter() {
  const words = search.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let shown = 0;
  cards.forEach((card, i) => { shown += !(card.hidden = !words.every(word => texts[i].includes(word))); });
  const found = words.length ? shown.toLocaleString("en") + " of " + total : total;
  document.getElementById("count").textContent = found + (cards.length === 1 ? " image" : " images");
}
let waiting;
search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 80); });
sort.addEventListener("change", () => {
  const order = orders[sort.value];
  list.append(...(order ? [...cards].sort(order) : cards));
});
document.addEventListener("keydown", event => {
  if (event.key === "/" && document.activeElement !== search) { event.preventDefault(); search.focus(); }
  if (event.key === "Escape" && search.value) { search.value = ""; filter(); }
});
if (!list.querySelector("[data-score]")) document.querySelectorAll(".scored").forEach(option => option.remove());
filter();
</script>
</body>
</html>
"""
