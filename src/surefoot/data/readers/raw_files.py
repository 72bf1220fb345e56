"""Files of raw data: which lie in a directory, whether they change, and their bytes, decompressed."""

import hashlib
import os
import re
from pathlib import Path
from stat import S_ISDIR

import pyarrow as pa

from surefoot.base import limits
from surefoot.base.errors import UserError
from surefoot.base.reading import check_file_names, check_regular

BESIDE = (
    r"thumbs\.db|ehthumbs\.db|desktop\.ini|icon\r|(readme|licen[cs]e|copying|citation)([ ._-].*)?|"
    r".*\.(dvc|md|rst|html?|pdf|docx?|log|ini|py|ipynb|bak|tmp|swp|part|crdownload)|_success|_(common_)?metadata|~\$.*|.*~"
)
BESIDE_DIRECTORIES = ("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found")
BESIDE_IMAGES = r"\.(txt|csv|tsv|json|jsonl|xml|ya?ml|parquet|xlsx?|zip|sha256|md5)$"


def entries(directory: Path) -> list[Path]:
    """What lies in a directory, by name; but for what is hidden.

    Raises:
        UserError: a name isn't UTF-8.
    """
    with os.scandir(directory) as found:
        names = sorted(entry.name for entry in found if not entry.name.startswith("."))
    check_file_names(directory, names)
    return [directory / name for name in names]


def data_entries(directory: Path, form: str) -> list[Path]:
    """The entries but for what lies beside data: what Windows and DVC put there, a README; beside images also texts
    such as captions.
    """
    return [entry for entry in entries(directory) if not is_beside(entry, form)]


def is_beside(entry: Path, form: str) -> bool:
    """Whether an entry of a directory of such data is none of them, by its name."""
    if entry.name.lower() in BESIDE_DIRECTORIES:
        return True
    return bool(
        re.fullmatch(BESIDE, entry.name, re.IGNORECASE)
        or (form == "images" and re.search(BESIDE_IMAGES, entry.name, re.IGNORECASE))
    ) and (not entry.is_dir())


def stamp(path: Path) -> tuple[str, int]:
    """What changes when a file, or anything below a directory, does; and how many bytes there are.

    Raises:
        OSError: it isn't there, or can't be read.
    """
    status = path.stat()
    if not S_ISDIR(status.st_mode):
        check_regular(path, status)
        return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}", status.st_size
    digest, size = hashlib.sha256(), 0
    for entry in data_entries(path, "images"):
        text, count = stamp(entry)
        digest.update(f"{entry.name}\0{text}\n".encode())
        size += count
    return digest.hexdigest(), size


def open_bytes(path: Path) -> tuple[pa.NativeFile, pa.NativeFile]:
    """The bytes of a file, decompressed if they are gzip or Zstandard (by how they begin, whatever its name); and the
    file itself.

    Reading raises OSError where the compressed data is damaged or cut short.
    """
    raw = pa.OSFile(str(path))
    start = raw.read(4)
    raw.seek(0)
    codec = "gzip" if start[:2] == b"\x1f\x8b" else "zstd" if start == b"\x28\xb5\x2f\xfd" else None
    return (pa.CompressedInputStream(raw, codec) if codec else raw), raw


def read_fully(stream: pa.NativeFile, size: int) -> bytes:
    """`size` bytes; fewer only at the end."""
    parts = []
    while size > 0 and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def unreadable(path: Path | str, error: Exception) -> UserError:
    """What to tell of a file whose bytes can't be had."""
    if "compressed stream" in str(error) or "inflate" in str(error) or "decompress" in str(error).lower():
        return UserError(f"{path}: its compressed data is damaged or cut short: {error}")
    if isinstance(error, OSError):
        return UserError(f"{path}: can't be read: {limits.system_reason(error)}")
    return UserError(f"{path}: can't be read: {str(error).splitlines()[0]}")
