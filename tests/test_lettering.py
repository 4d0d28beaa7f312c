"""Class names of any script in pictures: letters that are there, joined and in their direction, cut between letters."""

import unicodedata
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dist_train import lettering, picture
from dist_train.log import Log
from dist_train.runs import RunFolder
from dist_train.scoring import curves

NAMES = {
    "Chinese": "狗叫声",
    "Traditional": "狗叫聲",
    "Japanese": "犬の鳴き声カタカナ",
    "Korean": "개 짖는 소리",
    "Arabic": "نباح الكلب",
    "Persian": "می‌خواهم",
    "Hebrew": "נביחת כלב",
    "Hindi": "कुत्ते का भौंकना",
    "Thai": "เสียงสุนัขเห่าน้ำ",
    "Russian": "Собака лает",
    "Tamil": "நாய் கொட்டாவி",
    "Emoji": "🐶🔔 ❤️",
    "Marks": '<b> $x_a^2$, "q"',
}


@pytest.fixture
def system_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As without the package of fonts, on a system that has none but matplotlib's own."""
    monkeypatch.setattr(lettering, "_installed", lambda: ("DejaVu Sans",))
    monkeypatch.setattr(lettering.util, "find_spec", lambda name: None)
    lettering.families.cache_clear()
    yield
    lettering.families.cache_clear()


def _ink(text: str, families: tuple[str, ...]) -> np.ndarray:
    """The pixels of a text; a letter that the fonts lack is an error."""
    figure = Figure(figsize=(6, 1), dpi=100)
    one = figure.text(0.02, 0.3, text, fontsize=24)
    one.set_parse_math(False)
    one.set_fontfamily(list(families))
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "Glyph 29399 missing from font"
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., 0].copy()


@pytest.mark.parametrize("script", NAMES)
def test_names_are_written_in_letters_of_their_script(script: str) -> None:
    (name,) = lettering.names([NAMES[script]])
    assert name == NAMES[script]
    families = lettering.families(name)
    assert families is not None and (_ink(name, families) < 128).sum() > 200


@pytest.mark.parametrize("text", ["دب", "אבג"])
def test_words_run_from_right_to_left(text: str) -> None:
    """The first letter stands at the right: without it the left end is the same. (Dal joins nothing that follows.)"""
    families = lettering.families(text) or ()
    whole, one = (np.flatnonzero((_ink(shown, families) < 128).any(0)) for shown in (text, text[1:]))
    added = (whole.max() - whole.min()) - (one.max() - one.min())
    assert added > 3
    left = slice(int(whole.min()), int(whole.min()) + 8)
    assert np.array_equal(_ink(text, families)[:, left], _ink(text[1:], families)[:, left])


def test_letters_are_joined() -> None:
    """Arabic letters have other forms inside a word; the vowel I of Devanagari stands before its consonant."""
    arabic = lettering.families("ببب") or ()
    columns = [np.flatnonzero((_ink(text, arabic) < 128).any(0)) for text in ("ببب", "ب ب ب")]
    gaps = [int((np.diff(there) > 1).sum()) for there in columns]
    assert gaps[0] < gaps[1]
    hindi = lettering.families("कि") or ()
    together, alone = _ink("कि", hindi), _ink("क", hindi)
    assert np.flatnonzero((together < 128).any(0)).max() > np.flatnonzero((alone < 128).any(0)).max()
    begin = slice(0, 16)  # what comes first is not the consonant
    assert not np.array_equal(together[:, begin], alone[:, begin])


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("y" * 24, "y" * 24),
        ("y" * 25, "y" * 23 + "…"),
        ("语" * 12, "语" * 12),
        ("语" * 13, "语" * 11 + "…"),
        ("e\u0301" * 25, "e\u0301" * 23 + "…"),
        ("🇩🇪" * 13, "🇩🇪" * 11 + "…"),
        ("a" * 22 + "क्षि" * 9, "a" * 22 + "…"),
        ("👩‍🚒" * 9, "👩‍🚒" * 5 + "…"),
    ],
)
def test_names_are_cut_to_a_width_between_letters(name: str, shown: str) -> None:
    assert lettering.cut(name) == shown


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=60))
def test_a_cut_name_is_its_beginning(name: str) -> None:
    shown = lettering.cut(name)
    assert name.startswith(shown.removesuffix("…")) and sum(map(lettering._columns, shown)) <= lettering.LONGEST
    if shown != name:
        following = name[len(shown) - 1 : len(shown)]
        assert unicodedata.category(following) not in ("Mn", "Mc", "Me")


def test_without_fonts_there_are_numbers_and_a_line(
    system_only: None, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = ["dog", "狗", "สุนัข", "Собака", "\u200d"]
    assert lettering.names(classes) == ["dog", "class 1", "class 2", "Собака", "class 4"]
    assert lettering.advice(["dog", "Собака", ""]) is None
    folder = RunFolder(tmp_path)  # type: ignore[arg-type]
    log = Log()
    log.open(folder, tensorboard=False)
    for step in (1, 2):
        log.confusion(torch.eye(5, dtype=torch.int64), classes, step)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "3 class names are numbers" in error and "pip install weblate-fonts" in error


def test_a_picture_of_all_scripts() -> None:
    classes = [*NAMES.values(), "x" * 40]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = picture.pixels(picture.confusion(torch.randint(0, 40, (len(classes),) * 2), classes))
        figures = {"average_precision": [0.5] * len(classes), "positives": list(range(len(classes)))}
        bars = picture.pixels(picture.precisions(figures, classes))
    assert pixels.std() > 1 and bars.std() > 1


def test_curves_of_runs_of_all_scripts() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png = curves.drawing(list(NAMES.values()), [("loss", [[(0.0, 1.0), (1.0, 0.5)]] * len(NAMES))])
    assert png.startswith(b"\x89PNG")
    assert lettering.names(["\u200d"], "run") == ["run 0"]
