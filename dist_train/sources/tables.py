"""Tables of recordings -> a Source: CSV with a header, and `path<TAB>label` lists.

csv     path,label[,fold][,group][,split][,start][,end] in any order; several labels joined with `;`; paths relative to
        the CSV; start and end in seconds. The source is the file, or a folder with exactly one such CSV.
list    a line a recording, path and label parted by a tab (or by the line's last run of blanks); paths relative to the
        list or to the folder above it. Whole-number labels are looked up in label_list.txt, labels.txt or classes.txt
        beside the list (name of class 0 first). A folder with train_list.txt, test_list.txt, ... is taken with splits.
"""

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dist_train.sources import samples, text
from dist_train.sources.samples import Sample, Source, nfc, spelled

NEEDED = ("path", "label")
OPTIONAL = ("fold", "group", "split", "start", "end")
NAMES = ("label_list.txt", "labels.txt", "classes.txt")
LISTS = (".txt", ".tsv", ".lst", ".list", ".scp")


@dataclass(frozen=True)
class Pick:
    """What is asked of a table. group: the column to take as group; where: COLUMN=VALUE conditions on its rows."""

    group: str | None = None
    where: tuple[str, ...] = ()

    def columns(self) -> list[str]:
        """The columns of the conditions."""
        return [name for name, _ in self.conditions()]

    def conditions(self) -> list[tuple[str, str]]:
        """(column, value) pairs; ValueError for a text that is none."""
        pairs = [asked.partition("=") for asked in self.where]
        if bad := [asked for asked, (name, equals, _) in zip(self.where, pairs, strict=True) if not (name and equals)]:
            raise ValueError(f"--where {bad[0]}: is not COLUMN=VALUE")
        return [(name.strip(), value.strip()) for name, _, value in pairs]


def no_group(pick: Pick, layout: str) -> None:
    """ValueError where a group column is asked of a layout that has its own groups."""
    if pick.group is not None:
        raise ValueError(f"--group {pick.group}: the {layout} layout has no columns to choose from; use --group-regex")


def no_columns(pick: Pick, layout: str) -> None:
    """ValueError where a column is asked of a layout without any."""
    no_group(pick, layout)
    if pick.where:
        raise ValueError(f"--where {pick.where[0]}: the {layout} layout has no columns to choose rows by")


def needs(table: Path, names: tuple[str, ...]) -> None:
    """ValueError where a published table lacks its columns."""
    if missing := [name for name in names if name not in columns(table)]:
        raise ValueError(f"{table} line 1: no column {', '.join(missing)}; is it the published table?")


def filtered(path: Path, pick: Pick) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows that meet all conditions; ValueError where a column is not there, or no row meets them."""
    conditions = pick.conditions()
    _check_conditions(path, pick)
    left = 0
    for where, row in rows(path):
        if all(row[name].strip() == value for name, value in conditions):
            left += 1
            yield where, row
    if conditions and not left:
        raise ValueError(f"{path}: no row has {' and '.join(f'{name}={value}' for name, value in conditions)}")


def _check_conditions(path: Path, pick: Pick) -> None:
    for name in pick.columns():
        if name not in (there := columns(path)):
            raise ValueError(f"{path} line 1: no column {name} (--where); there are {', '.join(there)}")


def rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(`FILE line N`, fields by column name) of a CSV with a header; ValueError for a broken one."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if len(set(header)) < len(header):
                raise ValueError(f"{path} line 1: a column name appears twice; each needs its own")
            for fields in reader:
                where = f"{path} line {reader.line_num}"
                if not fields:
                    continue
                if len(fields) != len(header):
                    raise ValueError(
                        f"{where}: has {len(fields)} fields, the header {len(header)}; quote commas in names"
                    )
                yield where, dict(zip(header, fields, strict=True))
    except UnicodeDecodeError:
        raise text.foreign(path) from None
    except csv.Error as error:
        raise ValueError(f"{path} line {reader.line_num}: {error}; check the quotes") from None


def columns(path: Path) -> list[str]:
    """The names in a CSV's first line, in whatever encoding: a folder's only CSV is not passed over for its own."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            return [name.strip() for name in next(csv.reader(file), [])]
    except csv.Error:
        return []


def is_csv(root: Path) -> bool:
    """A CSV, or a folder with exactly one that has the needed columns."""
    return root.suffix.lower() == ".csv" if root.is_file() else len(_candidates(root)) == 1


def _candidates(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.csv")) if set(NEEDED) <= set(columns(path))]


def read_csv(root: Path, pick: Pick) -> Source:
    """The csv layout; `pick.group` names the column to take as group in place of `group`."""
    if root.is_dir():
        found = _candidates(root)
        if len(found) != 1:
            raise ValueError(f"{root}: holds {len(found)} CSVs with columns path and label, not one; name the file")
        root = found[0]
    _check_header(root, pick)
    found_samples = [_sample(root, where, row, pick.group or "group") for where, row in filtered(root, pick)]
    if not found_samples:
        raise ValueError(f"{root}: has no rows")
    return Source("csv", found_samples)


def _check_header(path: Path, pick: Pick) -> None:
    names, group = columns(path), pick.group
    known = (*NEEDED, *OPTIONAL, *([group] if group else []), *pick.columns())
    if missing := [name for name in NEEDED if name not in names]:
        text.read(path)  # of UTF-16 no name is found
        raise ValueError(
            f"{path} line 1: no column {' and '.join(missing)}; the header is path,label[,{'][,'.join(OPTIONAL)}]"
        )
    if group and group not in names:
        raise ValueError(f"{path} line 1: no column {group} (--group); there are {', '.join(names)}")
    _check_conditions(path, pick)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"{path} line 1: unknown column {', '.join(unknown)}; known are {', '.join(known)}: drop it, or name it in "
            "--group or --where"
        )


def _sample(table: Path, where: str, row: dict[str, str], group: str) -> Sample:
    path = samples.existing(table.parent, row["path"].strip(), where)
    labels = tuple(dict.fromkeys(samples.label(part, where) for part in row["label"].split(";")))
    start, end = samples.cut(row.get("start", ""), row.get("end", ""), where)
    return Sample(
        path,
        _source(path, table),
        labels,
        samples.fold(row.get("fold", ""), where),
        samples.split(row.get("split", ""), where),
        nfc(row.get(group, "").strip()) or None,
        start,
        end,
        where,
    )


def _source(path: Path, table: Path) -> str:
    """The path from the table's folder on, so that it is the same wherever the whole lies."""
    return spelled(Path(os.path.relpath(path, table.parent)))


def is_list(root: Path) -> bool:
    """A text file, or a folder with lists named after splits."""
    return root.suffix.lower() in LISTS if root.is_file() else bool(_split_lists(root))


def _split_lists(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.glob("*_list.txt"))
        if path.name.removesuffix("_list.txt").lower() in samples.SPLITS and path.is_file()
    ]


def read_list(root: Path, pick: Pick) -> Source:
    """The list layout."""
    no_columns(pick, "list")
    tables = _split_lists(root) if root.is_dir() else [root]
    if not tables:
        raise ValueError(f"{root}: holds no train_list.txt, test_list.txt or the like; name the list file")
    found, notes = [], []
    for table in tables:
        split = samples.SPLITS[table.name.removesuffix("_list.txt").lower()] if root.is_dir() else None
        if split:
            notes.append(f"{table.name} is taken as split {split}")
        found += list(_lines(table, split))
    if not found:
        raise ValueError(f"{root}: has no lines")
    return _named(Source("list", found, notes), tables[0].parent)


def _lines(table: Path, split: str | None) -> Iterator[Sample]:
    for number, line in enumerate(text.read(table).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{table} line {number}"
        parts = line.split("\t") if "\t" in line else line.rsplit(None, 1)
        if len(parts) != 2:
            raise ValueError(f"{where}: is not a path and a label parted by a tab")
        path = _listed(table, parts[0].strip(), where)
        labels = tuple(dict.fromkeys(samples.label(part, where) for part in parts[1].split(";")))
        yield Sample(path, _source(path, table), labels, split=split, where=where)


def _listed(table: Path, written: str, where: str) -> Path:
    """A list's file; lists are often written from the folder above theirs (dataset/audio/a.wav in dataset/list.txt)."""
    try:
        return samples.existing(table.parent, written, where)
    except ValueError as error:
        try:
            return samples.existing(table.parent.parent, written, where)
        except ValueError:
            raise error from None


def _named(source: Source, folder: Path) -> Source:
    """Class numbers become names, if all labels are numbers and a file of names lies there."""
    file = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    numbers = all(re.fullmatch(r"\d+", part, re.ASCII) for sample in source.samples for part in sample.labels)
    if file is None or not numbers:
        return source
    lines = text.read(file).strip("\n").split("\n")
    names = [samples.label(line, f"{file} line {number}") for number, line in enumerate(lines, 1)]
    given = []
    for sample in source.samples:
        beyond = [part for part in sample.labels if int(part) >= len(names)]
        if beyond:
            raise ValueError(f"{sample.where}: class number {beyond[0]} is not below the {len(names)} names in {file}")
        labels = tuple(names[int(part)] for part in sample.labels)
        given.append(Sample(sample.path, sample.source, labels, split=sample.split, where=sample.where))
    return Source(source.layout, given, [*source.notes, f"class numbers are named by {file.name}"])
