"""Names of any script -> as a picture shows them: cut to a width, the fonts that have their letters, or a number.

Fonts are those of the system and, where it is installed, of the package weblate-fonts (extra `fonts`): Kurinto,
for nearly every living script. matplotlib shapes them (Arabic, Devanagari, Thai) and sets them in their direction.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import util
from pathlib import Path

from matplotlib import font_manager

LONGEST = 24  # columns of a name, of which a Chinese letter takes two
# fonts of the usual systems that write Chinese, Japanese and Korean, or much of Unicode
_WIDE = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB"),
    *("Heiti SC", "Arial Unicode MS", "Malgun Gothic", "Yu Gothic", "Noto Sans"),
)
_PACKAGE, _FOLDER = "weblate_fonts", "static/weblate_fonts/kurinto/ttf"
_BUNDLED = tuple(f"Kurinto Sans{of}" for of in ("", " SC", " JP", " KR", " TC"))  # Chinese letters go by the first
_JOINER, _FLAGS, _SKINS = 0x200D, range(0x1F1E6, 0x1F200), range(0x1F3FB, 0x1F400)
_VIRAMA = 9  # combining class of the sign that joins the next consonant


def names(classes: Sequence[str], kind: str = "class") -> list[str]:
    """As the fonts here can write them: cut to `LONGEST` columns, or `class 7`, where they are of that kind."""
    return [_drawn(text) if writable(text) else f"{kind} {number}" for number, text in enumerate(map(cut, classes))]


def writable(text: str) -> bool:
    """Whether the fonts here have all letters of a text, and it has any to see."""
    return not text or (any(map(_seen, text)) and families(text) is not None)


def advice(classes: Sequence[str]) -> str | None:
    """A line for who gets numbers instead of names, and how to get names; None where all are written."""
    lacking = [name for name in classes if not writable(cut(name))]
    if not lacking:
        return None
    how = "install a font of that script" if util.find_spec(_PACKAGE) else "pip install weblate-fonts (the extra fonts)"
    return f"{len(lacking)} class names are numbers in pictures, since no font here can write {lacking[0]!r}: {how}"


@cache
def families(text: str) -> tuple[str, ...] | None:
    """Fonts that write a text together, the one that has all of it alone where there is one; None where none do."""
    wanted = {ord(letter) for letter in text if _seen(letter)}
    chosen: list[str] = []
    left = set(wanted)
    for family in _installed():
        letters = _letters(family)
        if wanted <= letters:
            return (family, *(("DejaVu Sans",) if family != "DejaVu Sans" else ()))
        if left & letters:
            chosen.append(family)
            left -= letters
    return None if left else tuple(chosen)


def cut(text: str) -> str:
    """At most `LONGEST` columns, `…` in the place of the rest; no letter loses its marks."""
    if sum(map(_columns, text)) <= LONGEST:
        return text
    kept, room = "", LONGEST - 1
    for cluster in _clusters(text):
        room -= sum(map(_columns, cluster))
        if room < 0:
            break
        kept += cluster
    return f"{kept}…"


def _clusters(text: str) -> Iterator[str]:
    """What a reader takes for one letter: with its marks, joined emoji, pairs that stand for a flag."""
    start = 0
    for place in range(1, len(text)):
        letter, before = text[place], text[place - 1]
        marks = unicodedata.category(letter) in ("Mn", "Mc", "Me", "Cf") or ord(letter) in _SKINS
        joined = ord(before) == _JOINER or unicodedata.combining(before) == _VIRAMA
        flag = ord(letter) in _FLAGS and ord(before) in _FLAGS and (place - start) % 2 == 1
        if not (marks or joined or flag):
            yield text[start:place]
            start = place
    yield text[start:]


def _columns(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _seen(letter: str) -> bool:
    """Not a joiner, a mark of direction or a choice among forms: a font may lack these."""
    return unicodedata.category(letter) != "Cf" and not 0xFE00 <= ord(letter) <= 0xFE0F


def _drawn(text: str) -> str:
    """Without what is not seen and no font has: it would be drawn as a box."""
    fonts = families(text) or ()
    return "".join(letter for letter in text if _seen(letter) or any(ord(letter) in _letters(font) for font in fonts))


@cache
def _installed() -> tuple[str, ...]:
    """Families to write names with, in order of preference; the first comes with matplotlib."""
    for path in _bundled():
        font_manager.fontManager.addfont(path)
    there = {font.name for font in font_manager.fontManager.ttflist}
    scripts = sorted(name for name in there if name.startswith("Noto Sans ") and name not in _WIDE)
    return ("DejaVu Sans", *(name for name in (*_WIDE, *_BUNDLED, *scripts) if name in there))


def _bundled() -> list[Path]:
    found = util.find_spec(_PACKAGE)
    roots = list(found.submodule_search_locations or ()) if found else []
    return sorted(path for root in roots for path in (Path(root) / _FOLDER).glob("KurintoSans*-Rg.ttf"))


@cache
def _letters(family: str) -> frozenset[int]:
    return frozenset(font_manager.get_font(font_manager.findfont(family)).get_charmap())
