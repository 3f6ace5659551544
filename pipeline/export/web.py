"""A static folder that captions in the browser with onnxruntime-web: images stay on the device."""

from __future__ import annotations

import json
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from latentcap.data.errors import UserError
from latentcap.export.folder import check_folder, describe, export_onnx
from latentcap.saved_model import SavedModel

PAGE = ("page.css", "page.js", "image.js", "search.js")
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
GRAPHS = ("encode.onnx", "step.onnx")
FILES = ("index.html", "config.json", *PAGE, *RUNTIME, *GRAPHS)
RESIZED = ("bilinear", "bicubic")


def export_web(model: Path, folder: Path, *, runtime: Path | None = None, **how: Any) -> None:
    """Write the folder, which any web server serves. ``how`` and errors are those of :func:`export_onnx`.

    ``runtime`` is npm's package onnxruntime-web, or a folder with its files; by default that of ``node_modules`` here.
    """
    check_folder(folder, FILES)
    scripts = find_runtime(runtime)
    saved = SavedModel.read(model)
    if saved.image.interpolation not in RESIZED:
        raise UserError(
            f"model '{model}' resizes its images by '{saved.image.interpolation}', which the page does not: it knows "
            f"{' and '.join(RESIZED)}. Export it with latentcap export onnx."
        )
    with tempfile.TemporaryDirectory() as made:
        export_onnx(model, Path(made), **how)
        folder.mkdir(parents=True, exist_ok=True)
        for name in GRAPHS:
            shutil.copyfile(Path(made, name), folder / name)
    for name in RUNTIME:
        shutil.copyfile(scripts / name, folder / name)
    pages = files("latentcap.pages").joinpath("web")
    for name in PAGE:
        (folder / name).write_bytes(pages.joinpath(name).read_bytes())
    tokenizer = saved.tokenizer
    bpe = tokenizer.kind == "bpe"
    config = describe(saved) | {"vocabulary": [[*piece] for piece in tokenizer.pieces()] if bpe else tokenizer.vocab}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "index.html").write_bytes(pages.joinpath("page.html").read_bytes())


def find_runtime(given: Path | None) -> Path:
    """The folder of onnxruntime-web's files. Raises UserError where they are not."""
    root = given or Path("node_modules", "onnxruntime-web")
    for folder in (root, root / "dist"):
        if all((folder / name).is_file() for name in RUNTIME):
            return folder
    raise UserError(
        f"'{root}' does not hold onnxruntime-web ({', '.join(RUNTIME)}). Install it here with npm install "
        "onnxruntime-web, or name its folder with --runtime."
    )
