"""Scored clips -> a CSV of one line a clip, to look at in a spreadsheet."""

from pathlib import Path

from dist_train import disk
from dist_train.scored import Scored
from dist_train.scoring.figures import right
from dist_train.sheet import separated

_CODING = ("utf-8", "surrogateescape")  # keys may hold bytes that are no text


def write(path: Path, scored: Scored, threshold: float | None = None) -> None:
    """key, truth, guess, right, and the probability of each class.

    Of several labels the truth is joined by `;`, and so is the guess, those over 1/2; right: the surest is one of the
    clip's. With a `threshold` a guess under it is `unknown`, and a column `known` says so. An unreadable clip has no
    guess.
    """
    names = scored.classes
    extra = ["known"] if threshold is not None else []
    rows: list[list[object]] = [["key", "truth", "guess", "right", *extra, *names]]
    right_N, best_N = right(scored).tolist(), scored.probability_NC.max(1).tolist()
    for number, key in enumerate(scored.keys.tolist()):
        row = scored.probability_NC[number].tolist()
        if scored.several:
            truth = ";".join(
                name for name, there in zip(names, scored.truth[number].tolist(), strict=True) if there > 0
            )
            guess = ";".join(name for name, said in zip(names, row, strict=True) if said > 0.5)
        else:
            truth, guess = names[int(scored.truth[number])], names[row.index(max(row))]
        if scored.bad[number]:
            rows.append([key, truth, "", "false", *(["false"] if extra else []), *([""] * len(names))])
            continue
        known = threshold is None or best_N[number] >= threshold
        said = [guess if known else "unknown", str(right_N[number]).lower(), *([str(known).lower()] if extra else [])]
        rows.append([key, truth, *said, *row])
    text = separated(rows).encode(*_CODING)
    disk.replace(path, lambda out: out.write(text))
