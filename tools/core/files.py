"""Files: written whole or not at all, hashed, and JSON read into types.

JSON becomes a dataclass here, at the edge, or is refused: behind it nothing has to ask
whether a key is there. msgspec does the conversion; its messages name the field.
"""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tools.core.errors import PipelineError

T = TypeVar("T")


def write(path: Path, content: str | bytes) -> None:
    """Write a whole file, or leave what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def remove_tree(folder: Path) -> None:
    """Remove a folder, if it is there, with its read-only files (on Windows, git's objects;
    OSError if one is in use).
    """

    def writable(remove: Callable[[str], None], path: str, _error: object) -> None:
        os.chmod(path, stat.S_IWRITE)
        remove(path)

    if folder.exists():
        shutil.rmtree(folder, onerror=writable)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write plain data or a dataclass as JSON, whole or not at all."""
    write(path, to_json(value) + "\n")


def to_json(value: object) -> str:
    """Plain data or dataclasses (nested ones too) as indented JSON."""
    return json.dumps(value, indent=2, default=vars)


def convert(value: object, kind: type[T]) -> T:
    """Plain data (parsed JSON) as ``kind``, such as a dataclass; other keys are passed over.
    ValueError: a field is missing or of another type; the message names it.
    """
    import msgspec

    return msgspec.convert(value, kind)


def parse_json(text: str | bytes, kind: type[T]) -> T:
    """JSON text as ``kind``; ValueError as :func:`convert`, or if it is not JSON."""
    import msgspec

    return msgspec.json.decode(text, type=kind)


def read_json(path: Path, kind: type[T], remedy: str = "") -> T:
    """A JSON file as ``kind`` (a dataclass, or any type that msgspec knows).

    Raises:
        FileNotFoundError: It is not there.
        PipelineError: It cannot be read; the sentence names file and field.
    """
    try:
        return parse_json(path.read_bytes(), kind)
    except ValueError as error:
        raise PipelineError(f"{path} cannot be read: {error}.", remedy) from error
