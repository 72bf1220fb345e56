import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from surefoot.data.readers import array_columns
from surefoot.data.readers.open_source import files_passed_over
from tests.unit.data.readers.reading import read, read_arrays, refusal, source_of

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def folder(tmp_path):
    """Two classes: 3 cats, all red, and 2 dogs, blue; 4 pixels high, 6 wide."""
    root = tmp_path / "images"
    for name, count, colour in (("dog", 2, BLUE), ("cat", 3, RED)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (6, 4), colour).save(root / name / f"{number}.png")
    return root


def test_classes_and_names_in_order(folder, monkeypatch):
    monkeypatch.setattr(array_columns, "BATCH_BYTES", 150)
    inputs, targets = read_arrays(folder)
    assert inputs.dtype == np.uint8 and inputs.shape == (5, 3, 4, 6)
    assert targets == ["cat"] * 3 + ["dog"] * 2
    assert inputs[0, :, 0, 0].tolist() == list(RED) and inputs[4, :, 3, 5].tolist() == list(BLUE)
    source = source_of(folder)
    assert len(list(source.batches)) == 3
    assert [source.where(row) for row in (0, 2, 3)] == [
        f"{folder}/cat/0.png",
        f"{folder}/cat/2.png",
        f"{folder}/dog/0.png",
    ]
    read(folder)


def test_grey_and_resized(folder):
    Image.new("RGB", (30, 20), BLUE).save(folder / "dog/big.jpg", quality=100)
    inputs, _ = read_arrays(folder, images={"mode": "L", "resize": [2, 5]})
    assert inputs.shape == (6, 1, 2, 5) and set(inputs.flatten().tolist()) <= {76, 28, 29, 30}


def test_other_kinds_of_image(folder):
    for number, (kind, suffix) in enumerate(
        [("P", "gif"), ("L", "png"), ("RGBA", "webp"), ("1", "bmp"), ("CMYK", "tiff"), ("LA", "png")]
    ):
        Image.new(kind, (6, 4)).save(folder / f"cat/other{number}.{suffix}")
    assert read_arrays(folder)[0].shape == (11, 3, 4, 6)


def test_images_of_different_sizes(folder):
    Image.new("RGB", (7, 4)).save(folder / "dog/1.png")
    assert refusal(folder) == f"{folder}/dog/1.png: is 4 x 7 pixels, those before it 4 x 6; set prepare.images.resize"


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n"]
)
def test_what_is_no_image_is_named(folder, content):
    (folder / "cat/1.png").write_bytes(content)
    assert refusal(folder).startswith(
        f"{folder}/cat/1.png: isn't an image (PNG, JPEG, BMP, GIF, TIFF, WEBP, PPM), or is damaged"
    )


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_an_image_that_is_cut_short_is_named(folder, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    file = folder / f"dog/2.{suffix}"
    Image.fromarray(pixels).save(file)
    file.write_bytes(file.read_bytes()[:-30])
    assert refusal(folder).startswith(f"{file}: isn't an image")


@pytest.mark.parametrize("side", [10_000, 20_000])
@pytest.mark.parametrize("first", [True, False])
def test_a_decompression_bomb_is_refused(folder, side, first):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    file = folder / ("cat/0.png" if first else "dog/2.png")
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    told = (
        f"{file}: has more than {Image.MAX_IMAGE_PIXELS} pixels, which could fill the memory (a decompression bomb);"
        " make it smaller"
    )
    assert refusal(folder, images={"resize": [4, 6]}) == told


def test_more_than_8_bits_are_refused(folder):
    Image.fromarray(np.zeros((4, 6), np.uint16)).save(folder / "cat/1.png")
    assert (
        refusal(folder)
        == f"{folder}/cat/1.png: has more than 8 bits a channel (mode I;16), which would be cut off; save it with 8"
    )


def test_what_is_hidden_does_not_count(folder):
    (folder / ".DS_Store").touch()
    (folder / "cat/.hidden.png").touch()
    assert len(read_arrays(folder)[1]) == 5
    Image.new("RGB", (6, 4)).save(folder / "cat/_DSC1.png")  # as cameras name them
    assert len(read_arrays(folder)[1]) == 6


def test_folders_that_are_no_classes(folder):
    (folder / "cow.png").touch()
    assert refusal(folder) == f"{folder}: must hold a directory for each class, and nothing else; there is cow.png"
    (folder / "cow.png").unlink()
    (folder / "eel").mkdir()
    assert refusal(folder) == f"{folder}/eel: is an empty directory; it is a class of its own, and must have images"


def test_a_file_where_a_folder_of_images_should_be(folder):
    file = folder / "cat/0.png"
    assert (
        refusal(file, format="images")
        == f"{file}: is a file; images must lie in a directory, with a directory for each class"
    )


def test_what_lies_beside_the_images_is_passed_over(folder):
    (folder / "__MACOSX").mkdir()
    for name in (
        "README.md",
        "captions.csv",
        "pictures.dvc",
        "cat/Thumbs.db",
        "dog/desktop.ini",
        "cat/0.txt",
        "LICENSE",
        "__MACOSX/0.png",
        "cat/0.png~",
        "_SUCCESS",
    ):
        (folder / name).write_text("no image")
    assert len(read_arrays(folder)[1]) == 5
    assert len(files_passed_over(str(folder))) == 10


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Train", "valid"), ("training", "testing")])
def test_splits_are_no_classes(folder, names):
    root = folder.parent / "splits"
    for name in names:
        shutil.copytree(folder, root / name)
    message = refusal(root)
    assert message.startswith(f"{root}: holds splits, ")
    assert f"prepare.source: {root / names[0]}" in message
    (root / "bus").mkdir()
    assert ("holds splits" in refusal(root)) == (names[-1] in ("test", "testing"))
    for name in names[1:]:
        shutil.rmtree(root / name)
    assert "holds splits" not in refusal(root)  # `train` beside a bus is a class


def test_partitions_are_no_classes(folder):
    (folder / "cat").rename(folder / "year=2023")
    assert refusal(folder).startswith(
        f"{folder}: is partitioned as Hive and Spark do it, by directories such as year=2023, whose names hold the"
        " column 'year'"
    )


def test_an_image_is_turned_as_the_camera_was_held(tmp_path):
    upright = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    exif = Image.Exif()
    exif[0x112] = 6
    (tmp_path / "pictures/a").mkdir(parents=True)
    (tmp_path / "pictures/b").mkdir()
    Image.fromarray(upright).save(tmp_path / "pictures/a/0.png")
    Image.fromarray(np.rot90(upright)).save(tmp_path / "pictures/b/0.png", exif=exif)
    inputs, _ = read_arrays(tmp_path / "pictures")
    np.testing.assert_array_equal(inputs[0], inputs[1])


@pytest.mark.parametrize(("width", "height"), [(4_000_000_000, 4_000_000_000), (2**31 - 1, 1), (0, 0)])
def test_a_header_of_odd_dimensions(folder, width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    written = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    (folder / "cat/0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(written))
    assert refusal(folder).startswith(f"{folder}/cat/0.png: ")


def test_an_image_that_is_no_file(folder):
    (folder / "cat/0.png").unlink()
    (folder / "cat/0.png").symlink_to("/dev/zero")
    assert refusal(folder) == f"{folder}/cat/0.png: can't be read: it is a device, not a file"
