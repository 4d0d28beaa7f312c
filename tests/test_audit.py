"""The audit finds the leaks that were planted, all of them and no other, and says what they are worth."""

import io
import itertools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import soxr
import urban
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import pack, wav

from dist_train import shards
from dist_train.inspection import audit, division, hearing, leaks, ledger, lookup, prints, twins
from dist_train.inspection.division import Division
from dist_train.inspection.ledger import Ledger

RATE = 16000
Run = Callable[..., subprocess.CompletedProcess[str]]
Tool = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(root: Path, environment: dict[str, str], tmp_path: Path) -> Run:
    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, str(root / "tools/make_shards.py"), *map(str, arguments)]
        return subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    return call


@pytest.fixture
def tool(
    script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Tool:
    """The same in this process, where torch is imported already: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    main = script("make_shards").main

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def _ledger(rows: list[tuple[int, int, int, float, float]], classes: int = 3) -> Ledger:
    """Of (label, group, recording, start, length) rows."""
    label, group, recording, start, length = (np.array(column) for column in zip(*rows, strict=True))
    none = np.full(len(rows), -1)
    return Ledger(
        *("made", tuple(f"class {number}" for number in range(classes)), label, group, recording, none),
        *(start.astype(float), start + length, none, np.zeros(len(rows), np.int64), str, lambda row: f"g{group[row]}"),
    )


ROW = st.tuples(st.integers(0, 2), st.integers(-1, 5), st.integers(0, 4), st.integers(0, 20), st.integers(1, 6))
TABLE = st.lists(st.tuples(ROW, st.integers(0, 2)), min_size=2, max_size=40)


def _division(parts: list[int]) -> Division:
    return Division("made", np.array(parts), ("0", "1", "2"), (0, 1, 2))


@pytest.mark.parametrize(("leaking", "overlapping"), [(7, 4), (1, 0), (60, 60), (0, 0)])
def test_finds_exactly_the_planted_leaks(tmp_path: Path, leaking: int, overlapping: int) -> None:
    planted = urban.make(tmp_path / "UrbanSound8K.csv", leaking, overlapping)
    (found,) = audit.audit(planted.path, "every:10").findings
    by_kind = {kind: [leak for leak in found.leaks if leak.kind == kind] for kind in leaks.KINDS}
    assert {leak.name for leak in by_kind["group"]} == planted.groups
    names = ledger.read(planted.path).name
    assert {frozenset(map(names, leak.rows.tolist())) for leak in by_kind["overlap"]} == planted.overlaps
    assert by_kind["recording"] == by_kind["bytes"] == by_kind["sound"] == []
    assert (found.helped, found.tested) == (planted.helped, planted.tested)
    (score,) = found.scores
    assert (score.tested, score.right, score.common) == (planted.tested, planted.right, planted.common)


def test_the_command_on_a_table(run: Run, tmp_path: Path) -> None:
    planted = urban.make(tmp_path / "UrbanSound8K.csv")
    done = run("audit", "UrbanSound8K.csv", "--split", "every:10")
    assert (done.returncode, done.stderr) == (1, "")
    assert "LEAKS: 7 of 60 tested samples (11.7 %) have a relative in training" in done.stdout
    assert (
        f"knowing the group alone scores {planted.right / 60:.4f}, the commonest class {planted.common / 60:.4f}"
        in (done.stdout)
    )
    told = json.loads(run("audit", "UrbanSound8K.csv", "--split", "every:10", "--json").stdout)
    assert {leak["name"] for leak in told["divisions"][0]["leaks"] if leak["kind"] == "group"} == planted.groups
    (tmp_path / "known.txt").write_text("# seen\n" + "\n".join(planted.groups))
    done = run("audit", "UrbanSound8K.csv", "--split", "every:10", "--allow", "known.txt")
    assert (done.returncode, done.stderr) == (0, "")
    assert "every:10: allowed: the same group" in done.stdout and "every:10: sound:" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.csv",), "nowhere.csv: there is no such table"),
        (("t.csv", "--split", "every:1"), "--split every:1: is none of folds, splits, group[:K], every:N, random:P"),
        (("t.csv", "--split", "random:2"), "--split random:2: is none of"),
        (("t.csv", "--split", "folds"), "--split folds: t.csv has no folds; other rules are"),
        (("t.csv", "--group", "speaker"), "t.csv line 1: no column speaker (--group); there are path, label"),
        (("t.csv", "--allow", "a.txt"), "a.txt line 1: is no group of t.csv"),
        (("bad.csv",), "bad.csv line 2: fold 'x' is no whole number"),
        (("other.csv",), "other.csv line 1: no column path and label"),
        (("nowhere",), "nowhere: no folder of shards there"),
    ],
)
def test_bad_input_is_one_line(tool: Tool, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    (tmp_path / "t.csv").write_text("path,label\na.wav,dog\nb.wav,cat\n")
    (tmp_path / "a.txt").write_text("nobody\n")
    (tmp_path / "bad.csv").write_text("path,label,fold\na.wav,dog,x\n")
    (tmp_path / "other.csv").write_text("file,name\na.wav,dog\n")
    code, _, said = tool("audit", *arguments)
    assert code == 2
    assert message in said and said.count("\n") == 1


@given(TABLE)
def test_a_group_on_two_sides_is_found_and_no_other(table: list[tuple[tuple[int, ...], int]]) -> None:
    data, parts = _ledger([row for row, _ in table]), [part for _, part in table]
    found = {int(data.group[leak[0]]): leak.tolist() for leak in leaks.spanning(data.group, np.array(parts))}
    there = {group: [row for row, other in enumerate(data.group) if other == group] for group in set(data.group) - {-1}}
    assert found == {group: rows for group, rows in there.items() if len({parts[row] for row in rows}) > 1}


@given(TABLE)
def test_every_overlap_in_time_is_found_and_no_other(table: list[tuple[tuple[int, ...], int]]) -> None:
    data, parts = _ledger([row for row, _ in table]), [part for _, part in table]
    pairs = {tuple(pair.tolist()) for pair in leaks.overlapping(data, np.array(parts))}
    true = {
        (one, other)
        for one, other in itertools.combinations(range(len(table)), 2)
        if parts[one] != parts[other]
        and data.recording[one] == data.recording[other]
        and max(data.start[one], data.start[other]) < min(data.end[one], data.end[other])
    }
    assert pairs <= true
    assert {row for pair in pairs for row in pair} == {row for pair in true for row in pair}


@given(TABLE)
def test_lookup_is_what_a_dictionary_would_guess(table: list[tuple[tuple[int, ...], int]]) -> None:
    data, parts = _ledger([row for row, _ in table]), [part for _, part in table]
    kin = data.kin().tolist()
    for score in lookup.scores(data, _division(parts)):
        part = int(score.part)
        trained = [row for row in range(len(parts)) if parts[row] != part]

        def best(rows: list[int]) -> int:
            counts = Counter(int(data.label[row]) for row in rows)
            return min(counts, key=lambda label: (-counts[label], label))

        tested = [row for row in range(len(parts)) if parts[row] == part]
        guesses = [best([other for other in trained if kin[other] == kin[row]] or trained) for row in tested]
        assert score.tested == len(tested)
        assert score.right == sum(guess == data.label[row] for guess, row in zip(guesses, tested, strict=True))
        assert score.common == sum(best(trained) == data.label[row] for row in tested)


@settings(max_examples=40)
@given(TABLE, st.integers(2, 3))
def test_folds_by_group_never_leak(table: list[tuple[tuple[int, ...], int]], k: int) -> None:
    rows = [row for row, _ in table]
    rows += [(0, 100 + extra, 100 + extra, 0, 1) for extra in range(k)]  # so that k folds are possible
    data = _ledger(rows)
    (made,) = division.make(data, f"group:{k}")
    assert leaks.find(data, made) == []
    assert len(made.tested) == k


def test_rules() -> None:
    data = _ledger([(0, row, row, 0, 1) for row in range(100)])
    (every,) = division.make(data, "every:10")
    assert np.flatnonzero(every.part).tolist() == list(range(0, 100, 10))
    drawn = [division.make(data, rule)[0].part for rule in ("random:0.2", "random:.2:0", "random:0.2:1")]
    assert [int(part.sum()) for part in drawn] == [20, 20, 20]
    assert (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).any()
    assert division.make(data, None) == []


def test_splits_and_files_of_a_plain_table(tmp_path: Path) -> None:
    """Two cuts of a file that share no time are still one recording; valid is tested by train, not by test."""
    (tmp_path / "t.csv").write_text(
        "path,label,split,start,end,mark\n"
        "a.wav,dog,train,0,1,x\na.wav,dog,test,1,2,x\nb.wav,cat,train,,,x\nb.wav,cat,dev,3,4,y\n"
        "c.wav,cat;dog,valid,0,1,x\nc.wav,cat,test,0.5,1,x\n"
    )
    (found,) = audit.audit(tmp_path / "t.csv").findings
    assert [(leak.kind, leak.rows.tolist()) for leak in found.leaks] == [
        ("recording", [0, 1]),
        ("recording", [2, 3]),
        ("recording", [4, 5]),
        ("overlap", [2, 3]),
        ("overlap", [4, 5]),
    ]
    assert found.helped == 2  # a.wav's test and b.wav's dev; c.wav is not in training
    assert found.exposed["overlap"].nonzero()[0].tolist() == [3]
    by_mark = audit.audit(tmp_path / "t.csv", group="mark").findings[0].leaks
    assert [leak.rows.tolist() for leak in by_mark if leak.kind == "group"] == [[0, 1, 2, 4, 5]]


def test_a_sound_verdict_says_what_it_cannot_know(tool: Tool, tmp_path: Path) -> None:
    lines = [f"{number}.wav,class {number % 2},s{number % 3}" for number in range(12)]
    (tmp_path / "t.csv").write_text("path,label,speaker\n" + "\n".join(lines))
    code, told, _ = tool("audit", "t.csv", "--split", "every:4")
    assert code == 0 and "no group or recording has two samples" in told
    code, told, _ = tool("audit", "t.csv", "--split", "every:4", "--group", "speaker")
    assert code == 1 and "no group or recording has two samples" not in told


def _published(path: Path, crossing: int) -> None:
    """A table of UrbanSound8K's size and folds, `crossing` of its recordings in two of them."""
    sizes = (873, 888, 925, 990, 936, 823, 838, 806, 816, 837)
    folds = [fold for fold, size in enumerate(sizes, 1) for _ in range(size)]
    groups = [f"{fold}{number // 8:04d}" for number, fold in enumerate(folds)]
    for number in range(crossing):
        groups[folds.index(2) + number] = groups[8 * number]
    lines = [
        f"{group}-0-0-{number}.wav,{group},{number % 8},{number % 8 + 1},1,{fold},{number % 10},class {number % 10}"
        for number, (group, fold) in enumerate(zip(groups, folds, strict=True))
    ]
    path.write_text("\n".join([urban.HEADER, *lines]))


def test_what_is_known_of_published_folds_is_listed_and_does_not_fail(tmp_path: Path) -> None:
    for crossing, leaking in ((5, False), (6, True)):
        _published(tmp_path / "UrbanSound8K.csv", crossing)
        found = audit.audit(tmp_path / "UrbanSound8K.csv")
        assert found.leaks is leaking
        groups = [leak for leak, why in found.findings[0].known if why.endswith("of UrbanSound8K")]
        assert sum(leak.kind == "group" for leak in groups) == (0 if leaking else 5)
    _published(tmp_path / "UrbanSound8K.csv", 5)
    assert audit.audit(tmp_path / "UrbanSound8K.csv", "every:10").leaks


def _noise(seed: int, seconds: float = 4.0) -> np.ndarray:
    """Noise whose colour and level change four times a second, as a recording's do."""
    random = np.random.default_rng(seed)
    parts = []
    for _ in range(int(seconds * 4)):
        white = np.fft.rfft(random.normal(size=RATE // 4))
        shape = np.interp(np.arange(len(white)), np.linspace(0, len(white), 12), random.uniform(0.05, 1, 12))
        parts.append(np.fft.irfft(white * shape) * random.uniform(0.3, 1))
    wave = np.concatenate(parts)
    return 0.3 * wave / np.abs(wave).max()


def _print(wave: np.ndarray, rate: int = RATE) -> prints.Print:
    return prints.take(hearing.Sound(0, wave[:, None].astype(np.float32), rate))


def _coded(wave: np.ndarray, form: str) -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format=form)
    file.seek(0)
    return soundfile.read(file)[0]


CHANGES: dict[str, Callable[[np.ndarray], tuple[np.ndarray, int]]] = {
    "quieter": lambda wave: (wave * 0.1, RATE),
    "ogg": lambda wave: (_coded(wave, "OGG"), RATE),
    "mp3": lambda wave: (_coded(wave, "MP3"), RATE),
    "at 8 kHz": lambda wave: (soxr.resample(wave, RATE, 8000), 8000),
    "at 22.05 kHz": lambda wave: (soxr.resample(wave, RATE, 22050), 22050),
    "begun later": lambda wave: (wave[20083:], RATE),
    "with noise": lambda wave: (wave + 0.003 * np.random.default_rng(9).normal(size=len(wave)), RATE),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_print_survives_what_copies_go_through(change: str) -> None:
    wave = _noise(1)
    one, other = _print(wave), _print(*CHANGES[change](wave))
    differ, shift = prints.distance(one, other)
    assert differ <= prints.ALIKE
    assert shift == (pytest.approx(20083 / 160, abs=2) if change == "begun later" else 0)
    assert len(np.intersect1d(one.sketch, other.sketch)) >= twins.COMMON


def test_other_sounds_and_silence_have_other_prints() -> None:
    one = _print(_noise(1))
    assert all(prints.distance(one, _print(_noise(seed)))[0] > 0.3 for seed in range(2, 8))
    for silent in (np.zeros(RATE * 4), np.zeros(10), np.sin(np.arange(RATE * 4) / 5)):
        assert prints.distance(_print(silent), _print(silent))[0] == 1.0


@pytest.mark.parametrize(("frames", "flipped", "alike"), [(250, 0.1, True), (50, 0.1, False), (50, 0.02, True)])
def test_a_short_likeness_must_be_closer(frames: int, flipped: float, alike: bool) -> None:
    random = np.random.default_rng(0)
    bits = random.integers(0, 2, (300, prints.BITS)).astype(np.uint64)
    other = bits[40 : 40 + frames] ^ (random.random((frames, prints.BITS)) < flipped)
    both = []
    for side in (bits, other):
        code = side @ (np.uint64(1) << np.arange(prints.BITS, dtype=np.uint64))
        both.append(prints.Print(code, np.ones(len(code), np.bool_), code))
    differ, shift = prints.distance(*both)
    assert shift == 40
    assert (differ <= prints.ALIKE) is alike


@given(st.lists(st.sets(st.integers(0, 30), max_size=8), min_size=1, max_size=14))
def test_candidates_are_all_pairs_with_enough_in_common(held: list[set[int]]) -> None:
    sketches = twins.Sketches()
    for row, entries in enumerate(held):
        sketches.add(row, np.array(sorted(entries), np.uint64) << np.uint64(59))
    pairs = sketches.candidates(lambda pairs: pairs[:, 0] % 2 == pairs[:, 1] % 2)
    wrapped = [{entry % 32 for entry in entries} for entries in held]
    true = [
        [one, other]
        for one, other in itertools.combinations(range(len(held)), 2)
        if one % 2 == other % 2 and len(wrapped[one] & wrapped[other]) >= twins.COMMON
    ]
    assert pairs.tolist() == true


def test_a_crowd_costs_no_square() -> None:
    sketches = twins.Sketches()
    for row in range(20000):
        sketches.add(row, np.array([7, 8], np.uint64))
    pairs = sketches.candidates(lambda pairs: np.ones(len(pairs), np.bool_))
    assert pairs.tolist() == [[row, row + 1] for row in range(19999)]


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """Clips in two folds; 2 copies 0 (bytes), 3 sounds like 1 (re-coded), 4 and 5 are one group, 6 and 7 overlap."""
    waves = [_noise(number, 3.0) for number in range(12)]
    waves[3] = 0.5 * _coded(waves[1], "OGG")
    waves[2] = waves[0]
    more = {4: {"group": "g"}, 5: {"group": "g"}, 8: {"group": "h"}, 10: {"group": "h"}}
    more |= {6: {"source": "long.wav", "start": 0, "end": 3}, 7: {"source": "long.wav", "start": 2, "end": 5}}
    members = []
    for number, wave in enumerate(waves):
        fold = {2: 2, 3: 1}.get(number, number % 2 + 1)
        record = {"label": f"class {number % 3}", "fold": fold, **more.get(number, {})}
        members.append((f"k{number:02d}.json", json.dumps(record).encode()))
        members.append((f"k{number:02d}.wav", wav((wave * 32767).astype("<i2"))))
    pack(tmp_path / "set/a.tar", members)
    shards.build(tmp_path / "set", workers=1)
    return tmp_path / "set"


def test_finds_what_is_planted_in_shards(planted: Path) -> None:
    found = audit.audit(planted)
    (finding,) = found.findings
    assert {(leak.kind, tuple(leak.rows.tolist())) for leak in finding.leaks} == {
        ("group", (4, 5)),
        ("recording", (6, 7)),
        ("bytes", (0, 2)),
        ("overlap", (6, 7)),
        ("sound", (1, 3)),
    }
    assert finding.helped == 8
    quick = audit.audit(planted, quick=True)
    assert not quick.listened and "sound" not in {leak.kind for leak in quick.findings[0].leaks}
    assert not audit.audit(planted, "group:2", quick=True).leaks


def test_pairs_can_be_allowed(tool: Tool, planted: Path, tmp_path: Path) -> None:
    (tmp_path / "known.txt").write_text("g\nk00\tk02\nk03\tk01\n")
    code, told, _ = tool("audit", planted, "--allow", "known.txt")
    assert code == 1
    assert "folds: allowed: near-duplicates by ear: 1: k03; 2: k01" in told
    assert "folds: LEAKS: 2 of 12 tested samples" in told
    (tmp_path / "known.txt").write_text("g\nk00\tk02\nk03\tk01\nk06\tk07\n")
    code, told, errors = tool("audit", planted, "--allow", "known.txt")
    assert (code, errors) == (0, "")


def test_esc10(esc10: Path, tool: Tool) -> None:
    """The official folds hold one overlap, which is known; a random fifth leaks."""
    assert tool("pack", esc10, "esc10", "--workers", "1")[0] == 0
    code, told, _ = tool("audit", "esc10")
    assert code == 0, told
    assert "folds: sound: no two parts share" in told
    known = [line for line in told.splitlines() if "known in the official folds of ESC-10" in line]
    assert len(known) == 1 and "3-151080-A" in known[0] and "5-151085-A" in known[0]
    code, told, _ = tool("audit", "esc10", "--split", "random:0.2", "--quick")
    assert code == 1
    assert "LEAKS: 28 of 80 tested samples (35.0 %) have a relative in training" in told
    assert "knowing the group alone scores 0.4125, the commonest class 0.0625" in told
