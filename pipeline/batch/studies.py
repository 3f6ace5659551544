"""DICOM files among the inputs: one input a study, and which frames of a film."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from latentcap.batch.inputs import Input
from latentcap.data.dicom_header import Header, read_header
from latentcap.data.example import ImageRef
from latentcap.data.kinds import DICOM_SUFFIXES, may_be_image, suffix_of
from latentcap.data.readers.medical.dicom_studies import NO_IMAGE, study_of

ALL = "all"


def choose_studies(frame: str | None, *, views: int, reports: bool = False) -> Studies | None:
    """Studies for a model of several views, and for ``reports``; None where each file is an input of its own and no
    frame is chosen."""
    most = views if views > 1 or reports else 0
    return Studies(most, frame or "") if most or frame else None


class Studies:
    """Files of one StudyInstanceUID as one input, named by the first of its images; all else as it is, and first.

    Headers are read once, and kept: iterate as often as wanted.

    Args:
        most: images of a study that the model reads; 0 leaves each file by itself.
        frame: of films: ``first``, ``middle``, a number from 1, or ``all``, which makes each frame an input of its own;
            "" leaves films to fail.
    """

    def __init__(self, most: int, frame: str) -> None:
        self.most, self.frame = most, frame
        self._headers: dict[ImageRef, Header | None] = {}

    def __call__(self, items: Iterable[Input]) -> Iterator[Input]:
        studies: dict[str, dict[str, tuple[Header, Input]]] = {}
        for item in items:
            header = self._header(item.images[0]) if _may_be_dicom(item) else None
            if self.frame and self.frame != ALL:
                item = replace(item, images=tuple(replace(image, frame=self.frame) for image in item.images))
            if header is None:
                yield item
            elif self.frame == ALL and header.frames > 1:
                yield from _each_frame(item, header.frames)
            elif not self.most or item.id or not header.study:
                yield item
            elif not header.frames:
                yield replace(item, skipped=NO_IMAGE)
            else:
                studies.setdefault(header.study, {}).setdefault(item.name, (header, item))
        for id, members in studies.items():
            yield from self._study(id, list(members.values()))

    def _study(self, id: str, members: list[tuple[Header, Input]]) -> Iterator[Input]:
        names = {item.images[0]: item.name for _, item in members}
        study = study_of(((header, item.images[0]) for header, item in members), self.most)
        first = next(item for _, item in members if item.images[0] == study.images[0])
        yield replace(first, images=study.images, views=study.views, study=id)
        for image, reason in study.left_out:
            yield Input(names[image], (image,), skipped=reason, study=id)

    def _header(self, image: ImageRef) -> Header | None:
        if image not in self._headers:
            try:
                self._headers[image] = read_header(image)
            except OSError:  # without pydicom, which whoever opens the image will say
                self._headers[image] = None
        return self._headers[image]


def _may_be_dicom(item: Input) -> bool:
    if item.error or item.skipped or len(item.images) != 1:
        return False
    name = item.images[0].name or item.images[0].path
    return suffix_of(name) in DICOM_SUFFIXES or may_be_image(name)


def _each_frame(item: Input, frames: int) -> Iterator[Input]:
    for number in range(1, frames + 1):
        image = replace(item.images[0], frame=str(number))
        yield replace(item, name=f"{item.name}#frame{number}", images=(image,))
