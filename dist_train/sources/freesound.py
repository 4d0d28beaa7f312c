"""Freesound's published data sets -> a Source, with their own splits and the recordings they were cut from.

fsdkaggle2018   FSDKaggle2018.audio_train/, .audio_test/ and .meta/ with train_post_competition.csv (fname, label,
                manually_verified, ...) and test_post_competition_scoring_clips.csv. E. Fonseca et al., DCASE 2018
fsd50k          FSD50K.dev_audio/, .eval_audio/ and .ground_truth/ with dev.csv (fname, labels, mids, split), eval.csv
                and vocabulary.csv, whose order is that of the classes. E. Fonseca et al., arXiv:2010.00475
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from dist_train.sources import samples
from dist_train.sources.samples import Sample, Source, below, label
from dist_train.sources.tables import Pick, columns, filtered, needs, no_group, rows

KAGGLE_TABLES = {"train": "train_post_competition.csv", "test": "test_post_competition_scoring_clips.csv"}
FSD50K_TABLES = {"dev": ("fname", "labels", "mids", "split"), "eval": ("fname", "labels", "mids")}
VOCABULARY = "vocabulary.csv"


def is_fsdkaggle2018(root: Path) -> bool:
    """The table of its training clips."""
    return (root / "FSDKaggle2018.meta" / KAGGLE_TABLES["train"]).is_file()


def fsdkaggle2018(root: Path, pick: Pick) -> Source:
    """FSDKaggle2018: splits train and test; the group is the Freesound recording, where the tables name it.

    A condition on a column, such as manually_verified=1, chooses among the training clips: the test table lacks it, for
    all its clips are verified.
    """
    no_group(pick, "fsdkaggle2018")
    found: list[Sample] = []
    notes: list[str] = []
    for split, name in KAGGLE_TABLES.items():
        table = root / "FSDKaggle2018.meta" / name
        if not table.is_file():
            raise ValueError(f"{root}: holds no FSDKaggle2018.meta/{name}")
        needs(table, ("fname", "label"))
        chosen = filtered(table, pick) if split == "train" else _chosen(table, pick, notes)
        folder = root / f"FSDKaggle2018.audio_{split}"
        for where, row in chosen:
            clip = samples.existing(folder, row["fname"].strip(), where)
            class_ = (label(row["label"].replace("_", " "), where),)
            group = row.get("freesound_id", "").strip() or None
            found.append(Sample(clip, below(clip, root), class_, split=split, group=group, where=where))
    return Source("fsdkaggle2018", found, notes)


def _chosen(table: Path, pick: Pick, notes: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows that meet all conditions; all rows, and a note, of a table without the columns."""
    if set(pick.columns()) <= set(columns(table)):
        return filtered(table, pick)
    notes.append(f"{table.name} has no column {', '.join(pick.columns())}: all its clips stay")
    return rows(table)


def is_fsd50k(root: Path) -> bool:
    """Its vocabulary."""
    return (root / "FSD50K.ground_truth" / VOCABULARY).is_file()


def fsd50k(root: Path, pick: Pick) -> Source:
    """FSD50K: several labels a clip, classes in the vocabulary's order, splits train, valid and test.

    A condition on split chooses among the dev clips: the eval table lacks that column, all its clips are for testing.

    The group is who uploaded the clip where FSD50K.metadata/ is there, for one person's recordings are alike; else the
    Freesound recording, which is the clip.
    """
    no_group(pick, "fsd50k")
    classes = _vocabulary(root / "FSD50K.ground_truth" / VOCABULARY)
    found: list[Sample] = []
    notes: list[str] = []
    for part, names in FSD50K_TABLES.items():
        table, uploader = root / "FSD50K.ground_truth" / f"{part}.csv", _uploaders(root, part)
        if not table.is_file():
            raise ValueError(f"{root}: holds no FSD50K.ground_truth/{part}.csv")
        needs(table, names)
        for where, row in filtered(table, pick) if part == "dev" else _chosen(table, pick, notes):
            name = row["fname"].strip()
            clip = samples.existing(root / f"FSD50K.{part}_audio", f"{name}.wav", where)
            labels = tuple(dict.fromkeys(_known(text, classes, where) for text in row["labels"].split(",")))
            split = samples.split(row["split"], where) if part == "dev" else "test"
            group = uploader.get(name, name)
            found.append(Sample(clip, below(clip, root), labels, split=split, group=group, where=where))
        notes += [] if uploader else [f"no FSD50K.metadata of {part} clips: their groups are the clips, not uploaders"]
    return Source("fsd50k", found, notes, tuple(classes.values()))


def _vocabulary(path: Path) -> dict[str, str]:
    """As written in the tables -> class name, in order of the vocabulary's numbers. The file has no header."""
    found: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, fields in enumerate(csv.reader(file), 1):
                if len(fields) < 2 or fields[0].strip() != str(number - 1):
                    raise ValueError(f"{path} line {number}: is not {number - 1},NAME,MID; is it the published table?")
                found[fields[1].strip()] = label(fields[1].replace("_", " "), f"{path} line {number}")
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file; it fixes the order of classes") from None
    return found


def _known(text: str, classes: dict[str, str], where: str) -> str:
    if text.strip() not in classes:
        raise ValueError(f"{where}: label {text!r} is not in {VOCABULARY}")
    return classes[text.strip()]


def _uploaders(root: Path, part: str) -> dict[str, str]:
    """Clip -> who uploaded it, from the published metadata if that lies there."""
    path = root / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json"
    if not path.is_file():
        return {}
    try:
        return dict(_pairs(json.loads(path.read_text("utf-8"))))
    except (ValueError, AttributeError):
        raise ValueError(f"{path}: is not the published metadata; put that in its place or delete it") from None


def _pairs(clips: dict[str, dict[str, str]]) -> Iterator[tuple[str, str]]:
    for name, about in clips.items():
        if about.get("uploader"):
            yield name, f"uploader {about['uploader']}"
