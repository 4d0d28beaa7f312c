"""Words of a command line -> sounds: files, folders, globs, addresses of stores, `-` for standard input."""

import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dist_train.bucket import Bucket
from dist_train.clouds import remote, spoken
from dist_train.inference.sound import KINDS, PATIENCE, Named, Plain, Sound
from dist_train.recordings import SUFFIXES
from dist_train.sounds import below


@dataclass(frozen=True, eq=False)
class Input:
    """place: where it lies below what was named, `dogs/a.wav`."""

    sound: Sound
    place: PurePosixPath


def found(words: Sequence[str], standard: Callable[[], Plain]) -> list[Input]:
    """Everything that was named, in the order of the words, folders by name. `standard`: what `-` is.

    A file that is not there is found out when it is read. ValueError: a folder, address or glob without recordings.
    """
    inputs = list[Input]()
    for word in words:
        inputs += _found(word, standard)
    return inputs


def _found(word: str, standard: Callable[[], Plain]) -> list[Input]:
    if word == "-":
        return [Input(Named("-", standard()), PurePosixPath("stdin"))]
    if remote(word):
        return _stored(word) if word.endswith("/") else [Input(word, PurePosixPath(word.rpartition("/")[2]))]
    path = Path(word)
    if path.is_dir():
        inside = [(one, one.relative_to(path)) for one in below(path)]
    elif not path.exists() and glob.has_magic(word):
        names = sorted(glob.glob(word, recursive=True))
        inside = [(Path(name), Path(os.path.basename(name))) for name in names if os.path.isfile(name)]
    else:
        return [Input(word, PurePosixPath(path.name))]
    if not inside:
        raise ValueError(f"{word}: no recordings there; name files, or a folder that holds some")
    return [Input(str(one), PurePosixPath(place.as_posix())) for one, place in inside]


def _stored(address: str) -> list[Input]:
    try:
        names = sorted(Bucket(address, PATIENCE).sizes())
    except OSError as error:
        raise ValueError(str(error)) from None
    wanted = [name for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES]
    if not wanted:
        raise ValueError(f"{spoken(address)}: no recordings there; name an address that ends in / and holds some")
    return [Input(f"{address}{name}", PurePosixPath(name)) for name in wanted]


def raw(text: str) -> tuple[int, int, str]:
    """RATE[:CHANNELS[:KIND]] -> Hz, channels, kind. ValueError where it is none."""
    rate, channels, kind, *more = [*text.split(":"), *("1", "s16")[text.count(":") :]][:4] or [""]
    if more or not (rate.isdecimal() and channels.isdecimal() and 1 <= int(channels) <= 64) or kind not in KINDS:
        raise ValueError(f"--raw {text}: give RATE[:CHANNELS[:KIND]], KIND one of {', '.join(KINDS)}, e.g. 44100:2:s16")
    return int(rate), int(channels), kind
