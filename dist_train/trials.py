"""A list of trials and embeddings -> error rates of verification. Each trial asks: is it the same speaker (or class)?

    1 id10270/one.wav id10270/two.wav        as VoxCeleb writes them: 1 or 0, then two clips
    id10270-one id10300-two nontarget        as Kaldi writes them: two clips, then target or nontarget

A clip is named by its key in the shards, or by its path in the folder or table that was packed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dist_train.assembly import packlist
from dist_train.scores import Floats, Marks, operating_points
from dist_train.sources.samples import Sample

_FOLDERS = ("wav", "dev/aac", "aac")  # of VoxCeleb, which its trials leave out
_ANSWERS = {"1": True, "0": False, "target": True, "nontarget": False}


@dataclass(frozen=True)
class Trials:
    """(T,) places of the clips of each trial among the keys, and whether they are the same speaker's."""

    first_T: NDArray[np.int64]
    second_T: NDArray[np.int64]
    same_T: Marks


def read(path: Path, keys: Sequence[str]) -> Trials:
    """The trials of a file. ValueError, naming the line: another form, a clip that is not among `keys`, one answer."""
    try:
        lines = [line.split() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    rows = [(number, line) for number, line in enumerate(lines, 1) if line]
    if not rows:
        raise ValueError(f"{path}: holds no trial; write a line `1 CLIP CLIP` for each")
    place = {key: number for number, key in enumerate(keys)}
    kaldi = len(rows[0][1]) == 3 and rows[0][1][2] in ("target", "nontarget")
    known: dict[str, int] = {}  # by name: a list of a million trials names few thousand clips
    found = []
    for number, line in rows:
        one, two, same_one = _trial(line, kaldi, f"{path} line {number}")
        for name in (one, two):
            if name not in known:
                known[name] = _find(name, place, f"{path} line {number}")
        found.append((known[one], known[two], same_one))
    first, second, same = zip(*found, strict=True)
    if len(set(same)) < 2:
        raise ValueError(f"{path}: all trials have the same answer; error rates need both kinds")
    return Trials(np.array(first), np.array(second), np.array(same))


def cosine(embedding_NE: Floats, trials: Trials, center: bool = False) -> Floats:
    """Cosine of each trial's clips (T,); `center`: after the mean of all embeddings is subtracted."""
    if center:
        embedding_NE = embedding_NE - embedding_NE.mean(0)
    norm_N1 = np.linalg.norm(embedding_NE, axis=1, keepdims=True)
    unit_NE = embedding_NE / np.maximum(norm_N1, 1e-12)
    step = 1 << 16  # a million trials of 192 numbers would take gigabytes at once
    starts = range(0, len(trials.first_T), step)
    pairs = [(trials.first_T[start : start + step], trials.second_T[start : start + step]) for start in starts]
    return np.concatenate([np.einsum("te,te->t", unit_NE[one], unit_NE[two]) for one, two in pairs])


def equal_error_rate(score_T: Floats, same_T: Marks) -> float:
    """The rate at which misses and false alarms are equal, on straight lines between thresholds; ties count as one."""
    miss_P, alarm_P = _rates(score_T, same_T)
    after = int(np.argmax(alarm_P >= miss_P))
    gap, next_gap = miss_P[after - 1] - alarm_P[after - 1], alarm_P[after] - miss_P[after]
    share = gap / (gap + next_gap)
    return float(alarm_P[after - 1] + share * (alarm_P[after] - alarm_P[after - 1]))


def least_cost(score_T: Floats, same_T: Marks, target: float = 0.01) -> float:
    """minDCF (NIST SRE): the least of P_target P_miss + (1 - P_target) P_fa over thresholds, over that of no system."""
    miss_P, alarm_P = _rates(score_T, same_T)
    return float((target * miss_P + (1 - target) * alarm_P).min() / min(target, 1 - target))


def _rates(score_T: Floats, same_T: Marks) -> tuple[Floats, Floats]:
    """Misses and false alarms from a threshold that takes nothing to one that takes all."""
    hits, alarms = operating_points(score_T, same_T)
    return 1 - np.append(0, hits) / hits[-1], np.append(0, alarms) / alarms[-1]


def _trial(line: list[str], kaldi: bool, where: str) -> tuple[str, str, bool]:
    """Two names, and whether they are the same speaker's."""
    one, two, answer = (*line[:2], line[-1]) if kaldi else (*line[1:], line[0]) if len(line) == 3 else ("", "", "")
    if len(line) != 3 or answer not in _ANSWERS:
        raise ValueError(f"{where}: is no trial; write `1 CLIP CLIP`, or `CLIP CLIP target`, alike in all lines")
    return one, two, _ANSWERS[answer]


def _find(name: str, place: dict[str, int], where: str) -> int:
    stem = name[: name.rindex(".")] if "." in name.rpartition("/")[2] else name
    paths = (name, *(f"{folder}/{name}" for folder in _FOLDERS))
    for key in (name, stem, *(packlist.key(Sample(Path(path), path, ())) for path in paths)):
        if key in place:
            return place[key]
    raise ValueError(f"{where}: clip `{name}` is not in the shards; name their keys, or paths as they were packed")
