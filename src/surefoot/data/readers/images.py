"""A folder of images with a folder for each class."""

import os
import struct
import warnings
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps, UnidentifiedImageError

from surefoot.base.errors import UserError
from surefoot.base.reading import open_file
from surefoot.data.readers.array_columns import array_column, array_field, rows_in_batch, target_field, text_column
from surefoot.data.readers.raw_files import data_entries
from surefoot.data.readers.source import FILE, BytesRead, RowSource
from surefoot.params.prepare_section import PrepareParams

# Of those that Pillow knows: bitmaps that need no other program.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
CHANNELS = {"L": 1, "RGB": 3}
LARGEST_IMAGE = 1 << 30  # bytes of a file
DEEP = ("I", "F")  # modes of more than 8 bits a channel begin so


def open_images(prepare: PrepareParams, files: list[Path], _labels: Path | None) -> RowSource:
    """The images below a directory, classes and names in order, as uint8 rows of shape [channels, height, width]; the
    target is the folder's name.

    Without a target, the images of a directory or of those in it, each with its `file`.

    Raises:
        UserError: naming the file that isn't an image, is damaged, has too many pixels, or another size than the first
        without prepare.images.resize.
    """
    # Pillow refuses more than twice MAX_IMAGE_PIXELS, and warns of more than that: an image of a few kB could fill all
    # memory.
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    # What it warns of while it tries formats on a damaged file, the error says.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    root, progress = files[0], BytesRead()
    classes = _folders(prepare, root)
    size = prepare.images.resize or _size(_read(prepare, data_entries(classes[0], "images")[0], None)[1])
    fields = [
        array_field((CHANNELS[prepare.images.mode], *size), np.dtype(np.uint8)),
        target_field(prepare.target or FILE, np.dtype("U1")),
    ]
    starts: list[int] = []

    def batches() -> Iterator[pa.RecordBatch]:
        rows = 0
        step = rows_in_batch(fields[0].type)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for folder in classes:
                starts.append(rows)
                paths = data_entries(folder, "images")
                for start in range(0, len(paths), step):
                    images = list(pool.map(lambda path: _read(prepare, path, size), paths[start : start + step]))
                    progress.read += sum(count for count, _ in images)
                    rows += len(images)
                    columns = [
                        array_column(np.stack([pixels for _, pixels in images]), fields[0]),
                        text_column(
                            [folder.name if prepare.target else str(path) for path in paths[start : start + step]]
                        ),
                    ]
                    yield pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))

    def where(row: int) -> str:
        at = bisect_right(starts, row) - 1
        return str(data_entries(classes[at], "images")[row - starts[at]])

    return RowSource(pa.schema(fields), batches(), where, None, lambda: progress.read)


def _folders(prepare: PrepareParams, root: Path) -> list[Path]:
    """The folders that hold the images, one for each class."""
    folders = data_entries(root, "images")
    if not prepare.target and not any(entry.is_dir() for entry in folders):
        folders = [root]
    for folder in folders:
        text_column([folder.name])  # refuses a name that isn't Unicode
        if not data_entries(folder, "images"):
            raise UserError(f"{folder}: is an empty directory; it is a class of its own, and must have images")
    return folders


def _size(pixels: np.ndarray) -> tuple[int, int]:
    _, height, width = pixels.shape
    return height, width


def _turned(image: Image.Image) -> Image.Image:
    """The image as the camera was held, by its EXIF orientation; as it is, where what EXIF says is damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except (SyntaxError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return image


def _read(prepare: PrepareParams, path: Path, size: tuple[int, int] | None) -> tuple[int, np.ndarray]:
    """How many bytes the file has, and the pixels, (channels, height, width)."""
    try:
        with open_file(path, LARGEST_IMAGE) as file, Image.open(file, formats=FORMATS) as image:
            turned = _turned(image)
            if image.mode.startswith(DEEP):
                raise UserError(
                    f"{path}: has more than 8 bits a channel (mode {image.mode}), which would be cut off; save it"
                    " with 8"
                )
            if size and prepare.images.resize is None and (turned.height, turned.width) != size:
                raise UserError(
                    f"{path}: is {turned.height} x {turned.width} pixels, those before it {size[0]} x {size[1]}; set"
                    " prepare.images.resize"
                )
            plain = turned.convert(prepare.images.mode)
            if size and (plain.height, plain.width) != size:
                plain = plain.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            count = os.fstat(file.fileno()).st_size
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(
            f"{path}: has more than {Image.MAX_IMAGE_PIXELS} pixels, which could fill the memory (a decompression"
            " bomb); make it smaller"
        ) from None
    except Exception as error:  # Pillow's decoders raise many kinds on damaged data
        if isinstance(error, OSError) and error.errno:  # the system's, not Pillow's
            raise
        why = (
            ""
            if isinstance(error, UnidentifiedImageError)
            else f": {next(iter(str(error).splitlines()), type(error).__name__)}"
        )
        raise UserError(f"{path}: isn't an image ({', '.join(FORMATS)}), or is damaged{why}") from None
    pixels = np.asarray(plain)
    return count, pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
