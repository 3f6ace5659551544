"""DICOM files to pictures, against pydicom's own functions and by hand; and that nothing of a header gets out."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentcap.batch.inputs import Input
from latentcap.batch.outputs.copied import copied, why_not_copied
from latentcap.cli.caption import main as caption
from latentcap.cli.evaluate import main as evaluate
from latentcap.cli.explain import main as explain
from latentcap.cli.prepare import main as prepare
from latentcap.data.batches.image_config import ImageConfig
from latentcap.data.batches.transforms import load_image
from latentcap.data.dicom import decode_dicom, is_dicom
from latentcap.data.errors import UserError
from latentcap.data.example import ImageRef
from latentcap.data.listing import iter_images
from tests.helpers import tiny_captioner
from tests.test_medical_configs import fit, mimic

pydicom = pytest.importorskip("pydicom", reason="needs the extra 'medical'")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.pixels import apply_modality_lut, apply_voi_lut  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
FILES = Path(pydicom.__file__).parent / "data" / "test_files"
SECRETS = ("Quimby^Rosalind", "Quimby", "MRN-777-31-4159", "19610802", "Saint Nowhere", "ACC-55512")


def make(pixels: np.ndarray, **elements: object) -> bytes:
    """A DICOM file of ``pixels`` (H, W) of a planted patient."""
    dataset = Dataset()
    dataset.PatientName, _, dataset.PatientID, dataset.PatientBirthDate = SECRETS[:4]
    dataset.InstitutionName, dataset.AccessionNumber = SECRETS[4:]
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel = 1
    dataset.BitsAllocated = pixels.itemsize * 8
    dataset.BitsStored = elements.pop("BitsStored", dataset.BitsAllocated)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PhotometricInterpretation = "MONOCHROME2"
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.PixelData = pixels.tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def shown(encoded: bytes) -> np.ndarray:
    return np.asarray(decode_dicom(encoded))


RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def test_a_window_is_pydicoms() -> None:
    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        encoded = make(
            RAMP,
            BitsStored=12,
            RescaleSlope=1,
            RescaleIntercept=-1024,
            WindowCenter=[40, 600],
            WindowWidth=[400, 1500],
            VOILUTFunction=function,
        )
        dataset = pydicom.dcmread(io.BytesIO(encoded))
        oracle = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
        expected = (oracle - -1024) / 4095 * 255  # pydicom spreads a window over the range of the stored bits
        np.testing.assert_allclose(shown(encoded), expected, atol=0.51)


def test_a_lut_is_pydicoms() -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 10]
    table.LUTData = np.sqrt(np.arange(4096) / 4095 * 1023**2).astype(np.uint16).tobytes()
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    encoded = make(RAMP, BitsStored=12, VOILUTSequence=[table])
    dataset = pydicom.dcmread(io.BytesIO(encoded))
    np.testing.assert_allclose(shown(encoded), apply_voi_lut(dataset.pixel_array, dataset) / 1023 * 255, atol=0.51)


@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_table_of_values_with_a_byte_for_each(sequence: str) -> None:
    small = np.arange(256, dtype=np.uint8).reshape(16, 16)
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [256, 0, 8], bytes(range(255, -1, -1))
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    np.testing.assert_array_equal(shown(make(small, **{sequence: [table]})), 255 - small)


def test_without_a_window_the_stored_bits_are_scaled() -> None:
    np.testing.assert_allclose(shown(make(RAMP, BitsStored=12)), RAMP / 4095 * 255, atol=0.51)
    np.testing.assert_allclose(shown(make(RAMP)), RAMP / 4095 * 255, atol=0.51)  # of 16 bits only 12 are used
    signed = (RAMP.astype(np.int16) - 2048) * 16
    np.testing.assert_allclose(shown(make(signed)), (signed + 32768.0) / 65535 * 255, atol=0.51)
    small = np.full((4, 4), 3, np.uint8)
    assert shown(make(small)).max() == 3


def test_monochrome1_is_inverted() -> None:
    dark = make(RAMP, BitsStored=12, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(shown(dark), 255 - shown(make(RAMP, BitsStored=12)).astype(int))


@pytest.mark.parametrize(
    "name", ["MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "MR_small_expb"]
)
def test_compressed_files_show_what_the_plain_one_does(name: str) -> None:
    plain = shown((FILES / "MR_small.dcm").read_bytes())
    assert plain.std() > 30
    np.testing.assert_array_equal(shown((FILES / f"{name}.dcm").read_bytes()), plain)


@pytest.mark.parametrize(
    "name", ["SC_rgb_jpeg_gdcm", "SC_rgb_jpeg_dcmtk", "examples_jpeg2k", "SC_rgb_rle_16bit", "examples_palette"]
)
def test_colour_files(name: str) -> None:
    image = decode_dicom((FILES / f"{name}.dcm").read_bytes())
    assert image.mode == "RGB"
    assert np.asarray(image).std() > 30


def test_files_of_other_things_are_refused() -> None:
    with pytest.raises(OSError, match=r"of 2 frames, .*latentcap prepare frames"):
        decode_dicom((FILES / "SC_rgb_rle_2frame.dcm").read_bytes())
    with pytest.raises(OSError, match=r"without an image"):
        decode_dicom((FILES / "reportsi.dcm").read_bytes())
    whole = make(RAMP, SOPClassUID="1.2.840.10008.5.1.4.1.1.1")
    with pytest.raises(OSError, match=r"cannot be decoded \(it ends before its last pixel: copy it again"):
        decode_dicom(whole[: len(whole) // 2])
    with pytest.raises(OSError, match=r"cut off before its image: copy it again"):
        decode_dicom(whole[: whole.index(SECRETS[0].encode())])


def test_what_to_do_about_a_compression_that_is_not_read() -> None:
    for syntax, advice in (
        ("1.2.840.10008.1.2.4.102", "gdcmconv --raw"),  # a film as H.264
        ("1.3.6.1.4.1.5962.300.1", "unknown: save it uncompressed"),  # somebody's own
        ("1.2.840.10008.1.2.4.70", "damaged, or of a kind that no installed decoder reads"),
    ):
        dataset = pydicom.dcmread(io.BytesIO(make(RAMP)))
        dataset.PixelData = pydicom.encaps.encapsulate([bytes(range(100))])
        dataset.file_meta.TransferSyntaxUID = syntax
        buffer = io.BytesIO()
        dataset.save_as(buffer, implicit_vr=False, little_endian=True)
        with pytest.raises(OSError, match=advice):
            decode_dicom(buffer.getvalue())


def test_dicom_is_known_by_its_content() -> None:
    encoded = make(RAMP)
    assert is_dicom(encoded)
    assert is_dicom((FILES / "no_meta_group_length.dcm").read_bytes())
    buffer = io.BytesIO()
    Image.new("L", (40, 40)).save(buffer, "PNG")
    assert not is_dicom(buffer.getvalue())
    ref = ImageRef("no suffix", data=encoded)
    for image in (ref.open(), load_image(ref, ImageConfig(size=(16, 16)))):
        assert (image.mode, image.size) == ("RGB", (64, 64))
        assert np.asarray(image)[..., 0].tolist() == shown(encoded).tolist()


def test_no_identifier_gets_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Names in headers and reports are searched for in everything that checking and captioning write and print."""
    images = tmp_path / "images"
    images.mkdir()
    whole = make(RAMP, BitsStored=12)
    (images / "good.dcm").write_bytes(whole)
    (images / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    (images / "garbled.dcm").write_bytes(whole[:700] + SECRETS[1].encode() * 40)
    (images / "film.dcm").write_bytes(make(RAMP, NumberOfFrames="8"))
    (images / "odd.dcm").write_bytes(make(RAMP, WindowCenter=1, WindowWidth=0, PatientAge="Quimby"))
    report = f" NAME: {SECRETS[1]}\n INDICATION: Cough.\n FINDINGS: Clear lungs.\n SIGNED BY: {SECRETS[2]}\n"
    rows = [{"image": f"images/{name.name}", "caption": "clear lungs"} for name in images.iterdir()]
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    study = tmp_path / "mimic" / "files" / "p10" / "p10000032" / "s50414267"
    study.mkdir(parents=True)
    study.with_suffix(".txt").write_text(report)
    (study / "aaa.dcm").write_bytes(whole)
    (tmp_path / "mimic" / "mimic-cxr-2.0.0-split.csv").write_text(
        "dicom_id,study_id,subject_id,split\naaa,50414267,10000032,train\n"
    )
    tiny_captioner().save(tmp_path / "model")
    out = tmp_path / "out"
    out.mkdir()

    assert prepare(["check", str(tmp_path / "table.jsonl"), "--json", str(out / "table.json")]) == 1
    assert prepare(["check", str(tmp_path / "mimic"), "--json", str(out / "mimic.json")]) == 0
    settings = ["--model", str(tmp_path / "model"), "--output", str(out / "captions.jsonl"), "--dtype", "float32"]
    code = caption([str(images), *settings, "--gallery", str(out / "page.html")])
    assert code == 3
    captions = [json.loads(line) for line in (out / "captions.jsonl").read_text().splitlines()]
    assert {"good.dcm"} <= {line["file"] for line in captions} <= {"good.dcm", "odd.dcm"}

    printed = "".join(capfd.readouterr())
    written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert "8 frames" in printed
    for secret in SECRETS:
        assert secret not in printed
        assert secret.encode() not in written


def test_training_and_its_pages_hold_no_identifier(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The same for a MIMIC-CXR tree of DICOM files: cache, checkpoints, model folder, logs, scores, explanations."""
    source, out = mimic(tmp_path / "data"), tmp_path / "out"
    for place, picture in enumerate(sorted(source.rglob("*.jpg"))):
        picture.with_suffix(".dcm").write_bytes(make(np.roll(RAMP, place * 99), BitsStored=12))
        picture.unlink()
    for report in source.rglob("*.txt"):
        report.write_text(f" NAME: {SECRETS[1]}\n{report.read_text()}\n SIGNED BY: {SECRETS[1]} {SECRETS[2]}\n")
    fit("mimic_cxr", source, out)
    model = str(out / "model")
    images = [str(path) for path in sorted(source.rglob("*0.dcm"))]
    page = ["--views", "--model", model, "--output", str(out / "page.html"), "--context", "cough"]
    assert explain([*images, *page]) == 0
    settings = ["--model", model, "--references", str(source), "--ablate", "context", "--clinical", "chexpert"]
    settings += ["--tokenizer", "words", "--samples", "10", "--cache-dir", str(out / "cache"), "--json"]
    assert evaluate([*settings, str(out / "scores.json")]) == 0
    printed = "".join(capfd.readouterr())
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {"config.json", "metrics.csv", "page.html", "scores.json", "last.ckpt"} <= {path.name for path in files}
    written = b"".join(path.read_bytes() for path in files)
    assert b"effusion" in written
    for secret in SECRETS:
        assert secret not in printed
        assert secret.encode() not in written


@pytest.mark.parametrize("name", ["scan.dcm", "IM0001", "scan.png"])
def test_headers_are_not_copied_into_tars(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(make(RAMP))
    tiny_captioner().save(tmp_path / "model")
    settings = ["--model", str(tmp_path / "model"), "--output", str(tmp_path / "out"), "--format", "webdataset"]
    assert caption([str(tmp_path / name), *settings, "--quiet"]) == 1
    assert "DICOM, whose header names the patient" in (tmp_path / "out.run" / "errors.jsonl").read_text()
    assert not list(tmp_path.rglob("*.tar"))


def test_a_second_view_is_not_copied_either(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(make(RAMP))
    views = (ImageRef("a.png", data=b""), ImageRef(str(tmp_path / "a.dcm")))
    assert "whose header names the patient" in why_not_copied(Input("a.png", views), "webdataset")
    with pytest.raises(OSError, match="whose header names the patient"):
        copied(ImageRef("https://host/a.png", data=make(RAMP)))


def test_the_feature_cache_holds_no_identifier(tmp_path: Path) -> None:
    import torch

    from latentcap.data.batches.transforms import decode_for, eval_transform
    from latentcap.data.cache.extract import extract
    from latentcap.data.cache.store import FeatureCache

    config = ImageConfig(size=(8, 8))
    refs = [ImageRef("a", data=make(RAMP, BitsStored=12))]
    with_file = tmp_path / "a.dcm"
    with_file.write_bytes(make(RAMP[:32], BitsStored=12))
    cache = FeatureCache(tmp_path / "cache", key="k", shape=(64, 3))
    extract(
        [*refs, ImageRef(str(with_file))],
        cache=cache,
        encode=lambda images: images.flatten(2).mT,
        transform=lambda image, seed: eval_transform(config)(image),
        decode=lambda encoded, name: decode_for(encoded, config, name=name),
        workers=1,
    )
    assert len(cache) == 2
    assert torch.isfinite(cache.read(list(cache._entries))).all()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert not any(secret.encode() in kept for secret in SECRETS)


def test_a_folder_of_dicom_files_is_listed(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(make(RAMP))
    assert [image.name for image in iter_images(str(tmp_path))] == ["a.dcm"]


def test_nonsense_in_headers_is_ignored_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    plain = shown(make(RAMP, BitsStored=12)).tolist()
    odd = [{"WindowCenter": 2048, "WindowWidth": width} for width in (0, -5)]
    odd += [{"RescaleSlope": 0, "RescaleIntercept": 0}]
    for elements in odd:
        caplog.clear()
        image = ImageRef("scans/x.dcm", data=make(RAMP, BitsStored=12, **elements)).open()
        assert np.asarray(image)[..., 0].tolist() == plain
        assert "x.dcm: its" in caplog.text
        assert "ignored" in caplog.text


def test_padding_is_black_and_sets_no_range() -> None:
    for value, limit in ((65535, None), (65000, 65535)):
        padded = RAMP.copy()
        padded[:8] = value
        more = {} if limit is None else {"PixelPaddingRangeLimit": limit}
        for kind in ("MONOCHROME2", "MONOCHROME1"):
            encoded = make(padded, PixelPaddingValue=value, PhotometricInterpretation=kind, **more)
            plain = shown(make(RAMP, BitsStored=12, PhotometricInterpretation=kind))
            np.testing.assert_array_equal(shown(encoded)[8:], plain[8:])
            assert not shown(encoded)[:8].any()


def test_a_hot_pixel_does_not_darken_the_rest() -> None:
    hot = RAMP.copy()
    hot[0, :3] = 65535
    np.testing.assert_array_equal(shown(make(hot))[1:], shown(make(RAMP, BitsStored=12))[1:])


def test_a_table_of_values_that_says_more_bits_than_it_has() -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = np.arange(4096, dtype=np.uint16).tobytes()
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    np.testing.assert_array_equal(
        shown(make(RAMP, BitsStored=12, VOILUTSequence=[table])), shown(make(RAMP, BitsStored=12))
    )


def test_frames_are_written_one_by_one(tmp_path: Path) -> None:
    film = np.stack([RAMP // 2, RAMP, RAMP])
    (tmp_path / "film.dcm").write_bytes(make(film, BitsStored=12, NumberOfFrames="3"))
    assert prepare(["frames", str(tmp_path / "film.dcm"), str(tmp_path / "out")]) == 0
    pictures = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in pictures] == ["film-0001.png", "film-0002.png", "film-0003.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(pictures[1])), shown(make(RAMP, BitsStored=12)))
    (tmp_path / "no.dcm").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no\.dcm: not a DICOM file"):
        prepare(["frames", str(tmp_path / "no.dcm"), str(tmp_path / "out")])


def test_a_targa_that_begins_as_dicom_may_is_none() -> None:
    for start in (b"\x02\x00\x02\x00", b"\x08\x00\x02\x00", b"\x08\x00\x0a\x00"):
        pixels = bytes(range(256)) * 12
        targa = start + bytes(8) + (32).to_bytes(2, "little") * 2 + b"\x18\x00" + pixels
        assert not is_dicom(targa)
    bare = make(RAMP)[132:]
    assert is_dicom(bare)
    assert is_dicom(bare[:512])
    implicit = b"\x08\x00\x05\x00\x0a\0\0\0ISO_IR 100\x08\x00\x16\x00\x02\0\0\x001\0\x08\x00\x18\x00\x02\0\0\x002\0"
    assert is_dicom(implicit + bytes(400))
