"""Cameras' raw files are shown by their preview, upright; without one, or damaged, they are errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentcap.data.image import ImageRef
from latentcap.data.kinds import why_not_read
from latentcap.data.listing import iter_images

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("rawpy")
pytest.importorskip("imagecodecs")


def draw_dng(path: Path, *, turn: int = 1, preview: bool = True) -> Path:
    """A DNG of 64 x 48 with a larger preview whose left half is red; ``turn`` is Exif's orientation."""
    picture = np.zeros((240, 320, 3), np.uint8)
    picture[:, :160, 0] = 255
    named = [(50706, "B", 4, (1, 4, 0, 0)), (50708, "s", 0, "Drawn"), (271, "s", 0, "Drawn"), (272, "s", 0, "Drawn")]
    named.append((274, "H", 1, turn))
    mosaic = [(33421, "H", 2, (2, 2)), (33422, "B", 4, (0, 1, 1, 2))]
    plain = {"metadata": None, "software": False}
    grey = np.full((48, 64), 1000, np.uint16)
    with tifffile.TiffWriter(path) as file:
        if preview:
            of_preview = {"photometric": "rgb", "compression": "jpeg", "rowsperstrip": 240, "subfiletype": 1}
            file.write(picture, subifds=1, extratags=named, **of_preview, **plain)
        file.write(grey, photometric="cfa", subfiletype=0, extratags=mosaic if preview else named + mosaic, **plain)
    return path


def is_red(image: Image.Image, x: float, y: float) -> bool:
    red, green, _ = image.getpixel((int(x * image.width), int(y * image.height)))  # type: ignore[misc]
    return red > 200 and green < 50


def test_the_preview_is_shown(tmp_path: Path) -> None:
    draw_dng(tmp_path / "x.DNG")
    (found,) = iter_images(tmp_path)
    image = found.image.open()
    assert (image.size, image.mode) == ((320, 240), "RGB")
    assert (is_red(image, 0.1, 0.5), is_red(image, 0.9, 0.5)) == (True, False)


@pytest.mark.parametrize(("turn", "red"), [(3, (0.9, 0.5)), (6, (0.5, 0.1)), (8, (0.5, 0.9))])
def test_it_is_upright(tmp_path: Path, turn: int, red: tuple[float, float]) -> None:
    image = ImageRef(str(draw_dng(tmp_path / "x.dng", turn=turn))).open()
    assert image.size == ((320, 240) if turn == 3 else (240, 320))
    assert is_red(image, *red)
    assert not is_red(image, 1 - red[0], 1 - red[1])


def test_without_a_preview_or_damaged_it_is_an_error(tmp_path: Path) -> None:
    bare = draw_dng(tmp_path / "bare.dng", preview=False)
    with pytest.raises(OSError, match="without a preview: develop it"):
        ImageRef(str(bare)).open()
    (tmp_path / "text.cr2").write_text("no raw file")
    with pytest.raises(OSError, match="raw file that is damaged"):
        ImageRef(str(tmp_path / "text.cr2")).open()


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentcap.data.kinds.find_spec", lambda name: None)
    assert "'latentcap[raw]'" in why_not_read("a.NEF")
