"""Lines of a log where no terminal is, and the warning of a run that will learn little."""

import io
import re
from types import SimpleNamespace

import pytest
from rich.cells import cell_len

from dist_train import screen
from dist_train.sheet import Sheet


def test_the_start_of_processes_is_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, file = [0.0], io.StringIO()
    monkeypatch.setattr(screen.time, "monotonic", lambda: clock[0])
    show = screen.plain(file)
    for second, done in ((0, 0), (60, 1), (66, 4), (70, 6)):
        clock[0] = second
        show("packing", done, 39)
    assert file.getvalue() == "packing: 4 of 39, 0.5/s, 70 s left\n"


def test_an_empty_table_is_its_title(capsys: pytest.CaptureFixture[str]) -> None:
    screen.show([Sheet("no setting differs", ("",), [])])
    assert capsys.readouterr().out == "no setting differs\n"


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_figure_is_lost_on_a_narrow_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A matrix of twenty classes has more columns than a terminal; each cell has a number of its own here."""
    heads = [f"{one} {name}" for one, name in enumerate(["<b>fire</b> crackling", "狗叫 和 汽车"] * 10, 1)]
    rows = [(head, *(str(1000 + 20 * one + other) for other in range(20))) for one, head in enumerate(heads)]
    monkeypatch.setattr(screen.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))
    screen.show([Sheet("confusion", ("", *map(str, range(1, 21))), rows)])
    told = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
    assert sorted(map(int, re.findall(r"\b1\d{3}\b", told))) == list(range(1000, 1400))
    assert told.count("confusion") == 1 and max(map(cell_len, told.splitlines())) <= width


@pytest.mark.parametrize(
    ("clips", "epochs", "size", "most", "told"),
    [
        (31, 60, 64, None, "31 clips x 60 epochs are 30 steps, .*: data.batch_size=8 data.micro_batch=8 make 233"),
        (31, 8, 64, None, "31 clips x 8 epochs are 4 steps, few to learn from: raise run.epochs"),
        (31, 60, 64, 5, None),
        (31, 1, 64, None, None),
        (2000, 60, 64, None, None),
    ],
)
def test_few_steps(clips: int, epochs: int, size: int, most: int | None, told: str | None) -> None:
    from dist_train.parts import Parts

    data, run = SimpleNamespace(batch_size=size, micro_batch=32), SimpleNamespace(epochs=epochs, max_steps=most)
    parts = SimpleNamespace(config=SimpleNamespace(data=data, run=run), progress=SimpleNamespace(samples=clips))
    parts.total = clips * epochs
    found = Parts.few(parts)  # type: ignore[arg-type]
    assert found is None if told is None else found is not None and re.match(told, found)
