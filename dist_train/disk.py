"""Files that are whole or absent. In: a path and what fills it; out: the file, there to stay after a power cut.

fill .NAME.tmp -> flush -> fsync -> rename to NAME -> fsync of the folder
"""

import json
import math
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO


def replace(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Write `path` in one piece: a reader, or a kill, finds the old file or the new one.

    Errors: what `fill` or the disk raises, with the path; the temporary file is removed and the old file untouched.
    """
    part = path.with_name(f".{path.name}.tmp")
    try:
        with part.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink()
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)  # a full disk says no name where bytes are written
        raise
    sync(path.parent)


def writable(path: Path) -> None:
    """Make a folder where there is none. ValueError where nothing can be written into it: told before the work."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror}); name another folder") from None


def sync(folder: Path) -> None:
    """Make renames inside a folder durable; nothing where the system cannot open folders (Windows)."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def replace_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, in one piece."""
    text = json.dumps(finite(value), indent=2, ensure_ascii=False) + "\n"
    replace(path, lambda file: file.write(text.encode()))


def finite(value: Any) -> Any:
    """The value with null for NaN and infinities, which JSON lacks and jq, browsers and databases refuse."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
