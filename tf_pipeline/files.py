"""Whole or not at all: hashing, durable writes, and what a half-written folder is."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import UserError


def sha256(path: Path) -> str:
    """Hash a file of any size."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def describe(path: Path) -> dict[str, Any]:
    """Give what a folder's index says of each of its files."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def check(path: Path, expected: dict[str, Any]) -> None:
    """Compare a file with its index entry; a missing or changed one is a UserError."""
    if not path.is_file():
        raise UserError(f"{path} is missing. Copy the whole folder again.")
    if path.stat().st_size != expected["bytes"]:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, and {expected['bytes']:,} were "
                        "written: it is cut short or was changed. Copy the whole folder again.")
    if (found := sha256(path)) != expected["sha256"]:
        raise UserError(f"{path} has sha256 {found[:12]}..., and {expected['sha256'][:12]}... was "
                        "written: its bytes were changed or damaged. Copy the folder again.")


def sync(path: Path) -> None:
    """Force a file or a folder's entries to the disk, so that a rename after it is safe."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refuse_existing(path: Path, flag: str) -> None:
    """Raise UserError, before minutes of work, when the file that `flag` names is there."""
    if path.exists():
        raise UserError(f"{flag} {path} exists and is not overwritten. Choose another name, or "
                        "delete it first.")


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Write a file of its own, folders above it included; what stood there stays until then."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.partial")
        try:
            part.write_text(text, "utf-8", errors=errors)
            sync(part)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def write_last(path: Path, content: dict[str, Any]) -> None:
    """Write a folder's index: its presence means that everything else is there."""
    part = path.with_name(f".{path.name}.partial")
    part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    for sibling in path.parent.rglob("*"):
        sync(sibling)
    os.replace(part, path)
    sync(path.parent)


def reserve(path: Path, size: int) -> None:
    """Raise OSError now if `size` bytes do not fit: HDF5 crashes the process on a full disk."""
    try:
        with path.open("wb") as stream:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, size)
            else:  # macOS
                for _ in range(size // (1 << 20) + 1):
                    stream.write(bytes(1 << 20))
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn a full or forbidden disk into one line that says where and what to do."""
    try:
        yield
    except OSError as error:
        # h5py puts the reason into the message only.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or (
            "No space left" in str(error) or "File too large" in str(error))
        if full:
            raise UserError(f"{target} could not be written: the disk is full ({error}). Nothing "
                            "there is complete. Free some space and run again.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR,
                           errno.EEXIST):
            raise UserError(f"{target} could not be written: {error.strerror} "
                            f"({error.filename}). Choose a folder that you may write to.") from None
        raise
