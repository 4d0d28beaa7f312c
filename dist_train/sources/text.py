"""The lines of tables and lists, which are UTF-8 with or without a byte order mark.

Excel under a Chinese Windows saves a CSV as GBK. Nothing here guesses an encoding: a wrong guess would give classes
other names without a word. The message tells how the file becomes UTF-8.
"""

import codecs
import shlex
from pathlib import Path


def read(path: Path) -> str:
    """The whole text, without its mark; ValueError where it is not UTF-8."""
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise foreign(path) from None


def foreign(path: Path) -> ValueError:
    """What is said of a file that is not UTF-8: the likely encoding, and the command that mends it."""
    coding = _likely(path.read_bytes())
    said = f"it looks like {coding}" if coding else "find out what it is, e.g. GB18030"
    name, new = shlex.quote(str(path)), shlex.quote(str(path.with_stem(f"{path.stem}-utf8")))
    return ValueError(
        f"{path}: is not UTF-8 text; {said}: iconv -f {coding or 'GB18030'} -t UTF-8 {name} > {new}, "
        "or save it as UTF-8 (Excel: CSV UTF-8)"
    )


def _likely(raw: bytes) -> str | None:
    """UTF-16 by its mark; GB18030 where all is of its common characters (other Chinese text seldom is)."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    try:
        raw.decode("gb2312")
    except UnicodeDecodeError:
        return None
    return "GB18030"
