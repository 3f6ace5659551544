"""What is captioned in runs that are killed: photos, films or studies, into an output of any format."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from latentcap.batch.inputs import Inputs
from latentcap.batch.journal import Journal
from latentcap.batch.local_engine import LocalEngine
from latentcap.batch.outputs import REPORTS, Output, make_output
from latentcap.batch.outputs.parts import ParquetParts
from latentcap.batch.outputs.subtitles import SUBTITLES
from latentcap.batch.run import Run
from latentcap.batch.run_folder import RunFolder
from latentcap.batch.studies import choose_studies
from latentcap.batch.worker import Worker
from latentcap.bench.read_back import Told, read_back
from latentcap.bench.video import draw_clip
from latentcap.data.dicom import import_pydicom
from latentcap.data.example import ImageRef

IN_TAR, SIDE = 3, 96
BLOCK, PER_PART = 3, 4
RATE, SHOTS, EVERY = 4, 2, 0.5  # of films: frames a second, shots of a second each, seconds between frames looked at
WRITTEN_BY_HAND = "what was there"


@dataclass
class Sources:
    """Three folders, with a broken file in each."""

    photos: Path
    films: Path
    studies: Path

    def of(self, kind: str) -> Path:
        return self.films if f".{kind}" in SUBTITLES else self.studies if kind in REPORTS else self.photos


def make_sources(root: Path, refs: Sequence[ImageRef], *, few: int) -> Sources:
    """All of ``refs`` as photos; ``few`` films of two of them each, and as many studies of one."""
    images = [ref.open().convert("RGB") for ref in refs]
    for image in images:
        image.thumbnail((SIDE, SIDE))
    return Sources(
        _photos(root / "photos", images),
        _films(root / "films", refs, few),
        _studies(root / "studies", images[:few]),
    )


class Job:
    """One output in a folder of its own."""

    def __init__(self, kind: str, place: Path, sources: Sources) -> None:
        self.kind, self.place, self.source = kind, place, sources.of(kind)
        self.path, self.folder = place / ("out.jsonl" if kind == "jsonl" else "out"), place / "out.run"
        place.mkdir()
        if kind == "embed":
            self.source = place / "photos"
            shutil.copytree(sources.photos, self.source)
        if kind in ("txt", "caption"):
            self.path.mkdir()
            (self.path / f"000.{kind}").write_text(WRITTEN_BY_HAND + "\n")

    def prepare(self, engine: LocalEngine) -> Output:
        """Let the engine's worker do what the output needs."""
        output = self._output()
        settings = replace(
            engine.settings, keep_images=output.needs_images, keep_ids=output.needs_ids, every=EVERY * self._is_film
        )
        engine.worker = Worker(engine.worker.captioner, settings)
        return output

    def run(self, engine: LocalEngine) -> None:
        output = self.prepare(engine)
        with RunFolder(self.folder, output=str(output)) as folder:
            folder.begin({"format": self.kind}, empty=False)
            Run(self.inputs(), output, folder, block=BLOCK, quiet=True)(engine.map)

    def inputs(self) -> Inputs:
        grouped = choose_studies(None, views=1, reports=self.kind in REPORTS)
        return Inputs([str(self.source)], videos=self._is_film, grouped=grouped)

    def captions(self) -> list[Told]:
        by_hand = (f"000.{self.kind}", WRITTEN_BY_HAND)
        return [told for told in read_back(self.kind, self.path, self.source) if told != by_hand]

    def done(self) -> int:
        """How many captions would not be made again."""
        journal = self._output().journal.path
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    def failed(self) -> list[str]:
        return [str(record["file"]) for record in Journal(self.folder / "errors.jsonl")]

    @property
    def _is_film(self) -> bool:
        return f".{self.kind}" in SUBTITLES

    def _output(self) -> Output:
        existing = "skip" if self._is_film else "append"
        output = make_output(None if self.kind == "embed" else self.path, self.folder, self.kind, existing=existing)
        if isinstance(output, ParquetParts):
            output.per_part = PER_PART
        return output


def _photos(folder: Path, images: Sequence[Image.Image]) -> Path:
    """Three kinds of files, a tar, and a file that is cut off."""
    folder.mkdir()
    copies = []
    for number, image in enumerate(images):
        copies.append(folder / f"{number:03}{('.jpg', '.png', '.webp')[number % 3]}")
        image.save(copies[-1])
    with tarfile.open(folder / "shard.tar", "w") as archive:
        for copy in copies[:IN_TAR]:
            archive.add(copy, f"9{copy.name}")
    return _with_broken(folder, copies[0])


def _films(folder: Path, refs: Sequence[ImageRef], count: int) -> Path:
    folder.mkdir()
    films = [
        draw_clip(folder / f"{number}.mp4", [refs[number], refs[number + 1 - SHOTS]], size=(SIDE, SIDE), rate=RATE)
        for number in range(count)
    ]
    return _with_broken(folder, films[0])


def _studies(folder: Path, images: Sequence[Image.Image]) -> Path:
    pydicom = import_pydicom()
    folder.mkdir()
    paths = []
    for number, image in enumerate(images):
        dataset = pydicom.Dataset()
        dataset.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
        uids = [pydicom.uid.generate_uid(entropy_srcs=[f"{what} {number}"]) for what in ("study", "series", "image")]
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = uids
        dataset.Modality, dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "OT", "MONOCHROME2", 1
        dataset.Rows, dataset.Columns, dataset.PixelRepresentation = image.height, image.width, 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        pixels = image.convert("L").tobytes()
        dataset.PixelData = pixels + bytes(len(pixels) % 2)
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        paths.append(folder / f"{number:03}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return _with_broken(folder, paths[0])


def _with_broken(folder: Path, whole: Path) -> Path:
    (folder / f"777broken{whole.suffix}").write_bytes(whole.read_bytes()[:200])
    return folder
