"""The page of a run: what it says of whole, unfinished and damaged runs, in any script, and that it is sound HTML."""

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from launches import CLASSES, Run, arguments

from dist_train import config, scored
from dist_train.inspection.hearing import Sound
from dist_train.report import chart, clips, content, folder, guesses, lines, media, page, plane, tsne
from dist_train.scored import Scored

VOID = {"meta", "img", "link", "input", "br"}
HOSTILE = ("<script>alert(1)</script>", "مطر غزير", "雨 & \"'", "$x$ {{ 7*7 }} </style>")


@contextmanager
def _silent(name: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda done, total: None


class Tree(HTMLParser):
    """Elements in order with their attributes and texts; a tag that is not closed in order is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str], list[str]]] = []
        self.open: list[tuple[str, list[str]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        texts: list[str] = []
        self.found.append((tag, {name: value or "" for name, value in attrs}, texts))
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):  # type: ignore[union-attr]
            self.open.append((tag, texts))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}, []))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1][0] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for _, texts in self.open:
            texts.append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str], str]]:
        return [(attributes, "".join(texts)) for name, attributes, texts in self.found if name == tag]


def made(run: Path, *overrides: str, mistakes: int = 20, audible: bool = True) -> tuple[content.Content, str]:
    """What the page of a run holds, and its text."""
    found = content.gather(run, content.Options(mistakes, audible, overrides), _silent)
    return found, page.render(found)


@pytest.fixture(scope="module")
def whole(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[content.Content, str]:
    return made(finished.folder)


@pytest.fixture(scope="module")
def hostile(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[content.Content, str]:
    """A run whose classes and keys are what no page should have to show."""
    folder = tmp_path_factory.mktemp("hostile") / "<b>run"
    shutil.copytree(finished.folder, folder)
    was = scored.read(folder)
    keys = np.array([f"<img src=x onerror=alert(1)>{number}\udcff" for number in range(len(was.keys))])
    probability_NC = np.roll(was.probability_NC, 1, axis=1)  # so that much is wrong
    scored.write(folder / "scores.npz", Scored(keys, HOSTILE, was.truth, probability_NC, was.bad))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "_same", lambda view, scored: True)  # so that these keys stand on the map too
        found, text = made(folder)
    assert found.plane is not None
    return found, text


def test_a_finished_run_is_told_whole(whole: tuple[content.Content, str], finished: Run) -> None:
    found, text = whole
    result = finished.result()
    assert [one.value for one in found.metrics if one.main] == [pytest.approx(result["value"])]
    assert found.matrix is not None and found.matrix.counts.tolist() == result["confusion"]
    assert [row.name for row in found.rows] == list(CLASSES)
    assert sum(row.trained or 0 for row in found.rows) == 40 and sum(row.clips for row in found.rows) == 20
    assert found.wrong == 20 - np.trace(result["confusion"]) and len(found.mistakes) == min(20, found.wrong)
    assert found.plane is not None and found.plane.shown == 20
    assert {one.title for one in (*found.learning, *found.speed)} >= {"Loss", "Clips a second", "Time waited for data"}
    assert f"{result['value']:.4f}" in text and "git checkout" in " ".join(one.line for one in found.commands)
    for name, value in (("features.bins", "20"), ("optim.lr", "0.003")):
        assert (name, value) in found.changed


def test_intervals_hold_their_figures(whole: tuple[content.Content, str]) -> None:
    accuracy = next(one for one in whole[0].metrics if one.name == "accuracy")
    assert accuracy.low is not None and accuracy.high is not None
    assert 0 <= accuracy.low <= accuracy.value <= accuracy.high <= 1
    for row in whole[0].rows:
        assert row.span is not None and row.recall is not None and row.span[0] <= row.recall <= row.span[1]
        assert f"{100 * row.span[0]:.1f} to {100 * row.span[1]:.1f}" in whole[1]


def test_every_mistake_has_sound_and_pictures(whole: tuple[content.Content, str]) -> None:
    tree = Tree(whole[1])
    sounds = [attributes["src"] for attributes, _ in tree.all("audio")]
    pictures = [attributes["src"] for attributes, _ in tree.all("img")]
    assert len(sounds) == len(pictures) == len(whole[0].mistakes) > 0
    assert all(one.startswith("data:audio/mpeg;base64,") for one in sounds)
    assert all(base64.b64decode(one.partition(",")[2]).startswith(b"\x89PNG") for one in pictures)


@pytest.mark.parametrize("which", ["whole", "hostile"])
def test_the_page_is_sound_html_and_loads_nothing(which: str, request: pytest.FixtureRequest) -> None:
    _, text = request.getfixturevalue(which)
    tree = Tree(text)
    assert [tag for tag, _, _ in tree.found].count("script") == 1 == [tag for tag, _, _ in tree.found].count("style")
    for tag, attributes, _ in tree.found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        for name in ("src", "href", "srcset", "action", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    policy = next(one["content"] for one, _ in tree.all("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    for tag in ("style", "script"):
        (_, inside) = tree.all(tag)[0]
        assert f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'" in policy


@pytest.mark.parametrize("which", ["whole", "hostile"])
def test_the_page_can_be_read_without_seeing_it(which: str, request: pytest.FixtureRequest) -> None:
    tree = Tree(request.getfixturevalue(which)[1])
    assert tree.all("html")[0][0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _, _ in tree.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    names = [attributes["id"] for _, attributes, _ in tree.found if "id" in attributes]
    assert len(names) == len(set(names))
    for tag, attributes, texts in tree.found:
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert set(attributes.get(name, "").split()) <= set(names)
        if attributes.get("role") == "img" or tag in ("audio", "nav"):
            assert {"aria-label", "aria-labelledby"} & attributes.keys(), (tag, attributes)
        if tag == "svg":
            assert {"aria-hidden", "role"} & attributes.keys()
        if tag in ("button", "a", "summary", "th", "caption", "legend"):
            assert "aria-label" in attributes or "".join(texts).strip(), (tag, attributes)
        if tag == "th":
            assert attributes.get("scope") in ("row", "col")
        if tag == "img":
            assert attributes["alt"]
    assert len(tree.all("caption")) == len(tree.all("table"))
    targets = {attributes["href"][1:] for attributes, _ in tree.all("a")}
    assert targets <= set(names)


def test_names_in_any_script_are_text(hostile: tuple[content.Content, str]) -> None:
    found, text = hostile
    tree = Tree(text)
    said = [inside for _, inside in tree.all("bdi")]
    assert found.wrong > 0 and set(HOSTILE) <= set(said)
    assert any(one.startswith("<img src=x onerror=alert(1)>") for one in said)
    assert "<img src=x" not in text and "alert(1)</script>" not in text and "\udcff" not in text
    assert all(one.media is None and "not found" in one.reason for one in found.mistakes)


def _contrast(one: str, other: str) -> float:
    """WCAG 2.1 contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_colours_can_be_told_from_what_is_behind_them(theme: int, root: Path) -> None:
    text = (root / "dist_train/report/template/page.css").read_text(encoding="utf-8")
    themes = [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", text, re.S)]
    colours = themes[0] | themes[theme]
    for behind in (colours["bg"], colours["panel"]):
        assert min(_contrast(colours[name], behind) for name in ("ink", "soft", "accent", "c0", "c1")) >= 4.5
        assert min(_contrast(colours[f"c{number}"], behind) for number in range(8)) >= 3
    for kind in "de":
        assert min(_contrast(colours["on"], colours[f"{kind}{level}"]) for level in (1, 2, 3)) >= 4.5
        assert min(_contrast(colours["on-dark"], colours[f"{kind}{level}"]) for level in (4, 5)) >= 4.5
    assert _contrast(colours["soft"], colours["faint"]) >= 4.5 and _contrast(colours["ink"], colours["note"]) >= 4.5


def test_an_unfinished_run_says_so(finished: Run, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(finished.folder, folder, ignore=shutil.ignore_patterns("result.json", "scores.npz", "checkpoints"))
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"kind": "train", "step": 7, "los')  # as a kill leaves it
    found, text = made(folder)
    assert not found.finished and found.matrix is None and found.metrics == []
    assert "This run is not finished" in text and found.learning


def test_a_run_that_has_only_begun_has_a_page(finished: Run, tmp_path: Path) -> None:
    folder = tmp_path / "begun"
    folder.mkdir()
    shutil.copy(finished.folder / "config.yaml", folder)
    found, text = made(folder)
    assert found.learning == [] and "no step recorded yet" in text


def test_without_shards_the_page_says_what_is_missing(finished: Run, tmp_path: Path) -> None:
    found, text = made(finished.folder, f"data.shards=[{tmp_path / 'gone'}]")
    assert found.matrix is not None and found.plane is None
    assert not Tree(text).all("audio") and "the shards are not there" in text and str(tmp_path / "gone") in text


def test_without_audio_the_pictures_stay(finished: Run) -> None:
    _, text = made(finished.folder, mistakes=2, audible=False)
    tree = Tree(text)
    assert not tree.all("audio") and len(tree.all("img")) == 2


def test_several_labels_have_no_matrix(finished: Run, tmp_path: Path) -> None:
    folder = tmp_path / "several"
    shutil.copytree(finished.folder, folder)
    was = scored.read(folder)
    truth = np.eye(4, dtype=np.uint8)[was.truth]
    truth[0] = 0  # a clip without a label
    truth[1] = 1
    scored.write(folder / "scores.npz", Scored(was.keys, was.classes, truth, was.probability_NC, was.bad))
    text = (folder / "config.yaml").read_text().replace("name: softmax", "name: bce")
    (folder / "config.yaml").write_text(text)
    found, text = made(folder)
    assert found.matrix is None and {"map", "auc"} <= {one.name for one in found.metrics}
    assert all(row.average_precision is not None for row in found.rows)
    assert found.mistakes and "nothing" in text


def test_unreadable_clips_are_counted_and_named(finished: Run, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    shutil.copytree(finished.folder, folder)
    was = scored.read(folder)
    bad = was.bad.copy()
    bad[:2] = True
    scored.write(folder / "scores.npz", Scored(was.keys, was.classes, was.truth, was.probability_NC, bad))
    found, text = made(folder)
    assert found.unreadable == was.keys[:2].tolist() and "2 clips cannot be read" in text
    assert not {one.mistake.key for one in found.mistakes} & set(found.unreadable)


def test_shards_of_another_order_are_not_taken_for_those_scored(finished: Run, tmp_path: Path) -> None:
    home = folder.read(finished.folder)
    views, was = clips.find(home), home.runs[0].scored
    assert was is not None and views.views[0] is not None
    assert clips.Groups(home, views).of(was) is not None
    turned = replace(home.runs[0], scored=replace(was, keys=np.roll(was.keys, 1)))
    assert clips.Groups(replace(home, runs=(turned,)), views).of(was) is None
    with pytest.raises(ValueError, match="or the same in another order"):
        clips.embedded(None, turned, views.views[0], np.arange(2), lambda done, total: None)


def test_a_cross_validation_is_one_page(finished: Run, tmp_path: Path) -> None:
    was = scored.read(finished.folder)
    for fold in (2, 10):
        shutil.copytree(finished.folder, tmp_path / f"seed-0/fold-{fold}")
        keys = np.array([f"{key}-{fold}" for key in was.keys.tolist()])
        part = Scored(keys, was.classes, was.truth, was.probability_NC, was.bad)
        scored.write(tmp_path / f"seed-0/fold-{fold}/scores.npz", part)
    parts = [scored.read(tmp_path / f"seed-0/fold-{fold}") for fold in (2, 10)]
    scored.write(tmp_path / "scores.npz", scored.pool(parts))
    rows = [{"seed": 0, "fold": fold, "value": 0.5 + fold / 100, "clips": 20, "seconds": 61.0} for fold in (2, 10)]
    record = {"metric": "accuracy", "seeds": [0], "folds": [2, 10, 11], "missing": [[0, 11]], "file": "a b.yaml"}
    record |= {"runs": rows, "mean": 0.56, "deviation_over_folds": 0.057, "seed_means": {"0": 0.56}}
    (tmp_path / "crossval.json").write_text(json.dumps(record))
    found, text = made(tmp_path)
    assert [run.path.name for run in found.folder.runs] == ["fold-2", "fold-10"]
    assert found.matrix is not None and found.matrix.counts.sum() == 40
    assert not found.finished and "seed 0 fold 11 still to come" in text and "0.5600" in text
    assert [len(one.lines) for one in found.learning if one.name == "loss"] == [2]
    assert any("tools/crossval.py 'a b.yaml'" in one.line for one in found.commands)


def test_many_classes_make_a_small_page() -> None:
    random = np.random.default_rng(0)
    classes = tuple(f"class {number}" for number in range(527))
    truth = random.integers(0, 527, 5000)
    probability_NC = random.dirichlet(np.full(527, 0.1), 5000)
    probability_NC[np.arange(4000), truth[:4000]] = 2  # right
    some = Scored(np.arange(5000).astype(str), classes, truth, probability_NC, np.zeros(5000, np.bool_))
    counts = guesses.counts(some)
    shown = guesses.matrix(some, counts)
    assert shown.counts.shape == (guesses.MOST + 1,) * 2 and shown.counts.sum() == 5000
    wrong = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    assert set(np.argsort(-wrong)[:10]) <= set(shown.numbers) and shown.names[-1] == "487 other classes"
    assert sorted(shown.similar) == list(range(guesses.MOST + 1))
    drawn = plane.lay(some, np.arange(60), random.normal(size=(60, 5)).astype(np.float32), truth == -1)
    assert drawn is not None and sum(len(group.points) for group in drawn.groups) == 60
    assert len({(group.colour, group.shape) for group in drawn.groups}) == len(drawn.groups)


def test_the_matrix_counts_as_a_loop_does() -> None:
    random = np.random.default_rng(1)
    truth, probability_NC = random.integers(0, 5, 200), random.dirichlet(np.ones(5), 200)
    some = Scored(np.arange(200).astype(str), tuple("abcde"), truth, probability_NC, random.random(200) < 0.1)
    expected = np.zeros((5, 5), int)
    for number in np.flatnonzero(~some.bad):
        expected[truth[number], probability_NC[number].argmax()] += 1
    counts = guesses.counts(some)
    assert (counts == expected).all()
    shown = guesses.matrix(some, counts)
    levels = [[shown.level(row, column) for column in range(5)] for row in range(5)]
    share = expected / expected.sum(1, keepdims=True)
    assert (np.array(levels) == np.where(share > 0, np.minimum(share * 5, 4).astype(int) + 1, 0)).all()
    told = guesses.pairs(counts, most=3)
    assert [count for _, _, count in told] == sorted(expected[~np.eye(5, dtype=bool)], reverse=True)[:3]


def test_the_worst_are_those_of_the_highest_loss() -> None:
    probability_NC = np.array([[0.9, 0.1], [0.2, 0.8], [0.45, 0.55], [0.0, 1.0]])
    some = Scored(np.array(list("abcd")), ("x", "y"), np.zeros(4, int), probability_NC, np.zeros(4, np.bool_))
    losses, wrong = guesses.judged(some)
    assert wrong.tolist() == [False, True, True, True]
    assert [one.key for one in guesses.worst(some, losses, wrong, 2)] == ["d", "b"]


def test_points_keep_their_neighbours() -> None:
    from sklearn.datasets import load_digits
    from sklearn.manifold import trustworthiness

    vectors = load_digits().data[:150].astype(np.float32)
    places = tsne.tsne(vectors)
    assert trustworthiness(vectors, places) > 0.97
    assert (places == tsne.tsne(vectors)).all()


def test_the_slope_of_the_map_is_that_of_its_divergence() -> None:
    import torch

    random = torch.Generator().manual_seed(0)
    x, y = (torch.randn(12, size, generator=random, dtype=torch.float64) for size in (4, 2))
    p = tsne.neighbours(x, 3.0)
    assert float(p.sum()) == pytest.approx(1) and (p == p.T).all()

    def divergence(y_N2: torch.Tensor) -> float:
        near = 1 / (1 + torch.cdist(y_N2, y_N2).square())
        near.fill_diagonal_(0)
        return float((torch.special.xlogy(p, p) - torch.special.xlogy(p, near / near.sum())).sum())

    numeric = torch.zeros_like(y)
    for place in np.ndindex(12, 2):
        for sign in (1, -1):
            moved = y.clone()
            moved[place] += sign * 1e-5
            numeric[place] += sign * divergence(moved) / 2e-5
    torch.testing.assert_close(tsne.gradient(p, y, 1.0), numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_few_points_have_places(count: int) -> None:
    places = tsne.tsne(np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32))
    assert places.shape == (count, 2) and np.isfinite(places).all()


def test_equal_points_have_places() -> None:
    assert np.isfinite(tsne.tsne(np.ones((8, 3), np.float32))).all()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.12, 0.13), (-3, 7), (5, 5), (0, 0), (1e-9, 3e-9), (0, 123456)])
def test_ticks_enclose_what_they_measure(low: float, high: float) -> None:
    found = chart.ticks(low, high)
    assert found[0] <= low + 1e-12 and found[-1] >= high - 1e-12 and 2 <= len(found) <= 12
    assert np.allclose(np.diff(found), found[1] - found[0])


def test_an_axis_of_zeros_is_no_hair_around_them() -> None:
    assert chart.ticks(0, 0) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])


def test_a_long_run_has_a_short_line_with_its_range() -> None:
    x = np.arange(100_000.0)
    y = np.sin(x / 1000) + np.where(x == 5000, 9.0, 0.0)
    drawn = chart.draw("a", "A", [chart.Series("a", x, y)], "step", "{:.3g}".format)
    assert drawn is not None
    (line,) = drawn.lines
    assert len(line.path.split()) <= 240 and line.band and not line.dots and len(drawn.rows) <= 24
    tops = [float(point.split(",")[1]) for point in line.band.split()]
    assert min(tops) < drawn.height / 3 and len(json.loads(drawn.points)[0]["x"]) <= 240


def test_a_chart_of_nothing_is_none() -> None:
    nothing = chart.Series("a", np.array([1.0]), np.array([np.nan]))
    assert chart.draw("a", "A", [nothing], "step", str) is None and chart.draw("a", "A", [], "step", str) is None


def test_damaged_lines_are_passed_over(tmp_path: Path) -> None:
    good = [{"kind": "train", "step": 1, "loss": 2.0}, {"kind": "train", "step": 2, "loss": None, "rate": 5}]
    broken = [b"", b"[1]", b'{"kind": "tr', b"\xff\xfe", b'{"step": 3}']
    text = b"\n".join([json.dumps(good[0]).encode(), *broken, json.dumps(good[1]).encode(), b""])
    (tmp_path / "metrics.jsonl").write_bytes(text)
    table = lines.read(tmp_path / "metrics.jsonl").train
    assert table["step"].tolist() == [1, 2] and table["loss"][0] == 2 and np.isnan(table["loss"][1])
    assert np.isnan(table["rate"][0]) and table["rate"][1] == 5


@pytest.mark.parametrize(
    ("rate", "heard"), [(16000, 16000), (44100, 44100), (96000, 48000), (4000, 8000), (11000, 8000)]
)
def test_a_sound_is_kept_as_it_was(rate: int, heard: int, tmp_path: Path) -> None:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate).astype(np.float32)
    made_of = media.render(Sound(0, np.stack([wave, wave], 1), rate), audible=True)
    path = tmp_path / "sound.mp3"
    path.write_bytes(base64.b64decode(made_of.audio.partition(",")[2]))
    back, at = soundfile.read(path)
    spectrum = np.abs(np.fft.rfft(back))
    assert at == heard and len(back) / at == pytest.approx(2, abs=0.2)
    assert spectrum.argmax() * at / len(back) == pytest.approx(440, abs=2)
    assert made_of.peak == pytest.approx(-6, abs=0.1) and len(made_of.audio) < 60_000


def test_a_spectrogram_has_its_tone_in_its_place() -> None:
    wave = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    cells = media.spectrogram(wave, 16000)
    mel = 2595 * np.log10(1 + 1000 / 700) / (2595 * np.log10(1 + 8000 / 700))
    assert cells[:, 10].argmax() == pytest.approx(mel * len(cells), abs=2)
    assert media.spectrogram(np.zeros(100, np.float32), 16000).dtype == np.uint8


def test_a_long_clip_is_cut_and_an_empty_one_refused() -> None:
    wave = np.zeros((8000 * 50, 1), np.float32)
    found = media.render(Sound(0, wave, 8000), audible=False)
    assert (found.seconds, found.kept, found.audio) == (50, media.LONGEST, "")
    with pytest.raises(ValueError, match="no samples"):
        media.render(Sound(0, wave[:0], 8000), audible=True)


def test_the_command_writes_the_page(
    script: Callable[[str], ModuleType], finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert script("report").main([str(finished.folder), "--out", str(out), "--mistakes", "1", "--no-audio"]) == 0
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert str(out) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"),
    [(["nowhere"], "no run there"), ([".", "--mistakes", "-1"], "--mistakes -1"), (["."], "no run there")],
)
def test_the_command_refuses_in_one_line(
    given: list[str],
    said: str,
    script: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert script("report").main(given) == 2
    error = capsys.readouterr().err
    assert error.startswith("report: ") and said in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_started_a_run_is_told(finished: Run) -> None:
    from dist_train.report import facts

    assert facts.started({"command": ["x/__main__.py", "a b.yaml"], "ranks": 1}) == "python -m dist_train 'a b.yaml'"
    two = {"command": ["x", "c.yaml"], "launcher": "torchrun", "ranks": 16, "local_ranks": 8}
    assert facts.started(two) == "torchrun --nnodes=2 --nproc_per_node=8 -m dist_train c.yaml"
    home = folder.read(finished.folder)
    strange = replace(home.runs[0], environment={"commit": "0; x"})
    assert facts.commands(replace(home, runs=(strange,)))[0].line == "git checkout '0; x'"
    assert facts.changed(config.load(*_given(finished))) == facts.changed(config.load(finished.folder / "config.yaml"))


def _given(finished: Run) -> tuple[str, list[str]]:
    file, *overrides = arguments(finished.folder.parent, "shards", "run.epochs=3", "optim.lr=3e-3")
    return file, overrides
