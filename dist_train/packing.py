"""Recordings and labels -> a folder of WebDataset tars with their index, ready to train from.

    source --layouts--> samples --classes--> labels --headers, folds--> packing list --loading--> tars --shards--> index

Every step before `loading` only plans. The tars' bytes depend on the recordings and the options alone; a packing that
was stopped goes on when it is started again. What is left out is counted and listed in DEST/left_out.tsv.
"""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dist_train import classes, folds, index, jobs, layouts, loading, packlist, shards
from dist_train.jobs import Coding
from dist_train.loading import Loaded
from dist_train.options import Options
from dist_train.packlist import Packlist
from dist_train.recordings import Header
from dist_train.row import CLASSES, FEATURES
from dist_train.samples import Sample
from dist_train.scan import AUDIO_SUFFIXES

if TYPE_CHECKING:
    from dist_train.extraction import Recipe

FOLDS = 5
MAX_UNREADABLE = 0.01
LEFT_OUT = "left_out.tsv"
HANDFUL = 64  # files a task: a header takes less time than a message

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, of how many)."""
Say = Callable[[str], None]
"""Called with a line for people."""
Clip = tuple[Sample, Header]
Result = TypeVar("Result")


@dataclass
class Report:
    """What was packed. unreadable: (clip, reason); short: clips under min_seconds; untrimmed: clips kept whole, for
    trimming found nothing to keep in them; trimmed: seconds cut away; kept: shards that were there before; indexed:
    False if too many recordings were unreadable."""

    dest: Path
    layout: str
    clips: int = 0
    seconds: float = 0.0
    classes: dict[str, int] = field(default_factory=dict)
    folds: dict[int, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    shards: int = 0
    kept: int = 0
    bytes: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    short: list[tuple[str, str]] = field(default_factory=list)
    untrimmed: list[str] = field(default_factory=list)
    trimmed: float = 0.0
    elapsed: float = 0.0
    indexed: bool = False


def pack(
    source: Path,
    dest: Path,
    options: Options,
    progress: Progress = lambda stage, done, total: None,
    say: Say = lambda line: None,
) -> Report:
    """Pack `source` into `dest` and index it.

    ValueError, one line: bad options, table rows, files or classes; a folder that holds something else; a full disk.
    With more than 1 % of the clips unreadable everything else is packed, but not indexed: Report.indexed is False.
    """
    begun = time.monotonic()
    source, dest = Path(source), Path(dest)
    options.check(source, dest)
    workers, recipe = options.workers or index.cores(), None
    if options.features is not None:
        recipe, options = _recipe(options)
    found = layouts.read(source, options.layout, options.group, options.group_regex, tuple(options.where))
    names = classes.read(options.classes) if options.classes else None
    samples, ordered, notes = classes.choose(found.samples, names)
    if names is None and found.classes is not None:
        ordered = found.classes
    for line in (f"{source}: read as layout {found.layout}", *found.notes, *notes):
        say(line)
    report = Report(dest, found.layout, classes=dict.fromkeys(ordered, 0))
    clips = list(_usable(samples, options, workers, report, progress))
    clips = _with_folds(clips, options, workers, progress, say)
    form = (options.codec, options.sample_rate, options.channels)
    if recipe is not None:
        form = (recipe.kind, recipe.stored.rate, recipe.stored.bins)
    wanted = packlist.build(clips, *form, int(options.shard_mb * (1 << 20)))
    made = {} if recipe is None else {"features": recipe.stored.record(), "feature_type": recipe.kind}
    with loading.claimed(dest, wanted, options.coding() | {"classes": list(ordered)} | made):
        if recipe is not None:
            loading.write_whole(dest / FEATURES, recipe.record())
        coding = Coding(
            options.codec, options.sample_rate, options.channels, options.min_seconds, options.trimming(), recipe
        )
        loaded = loading.load(dest, wanted, coding, workers, lambda done, total: progress("packing", done, total))
        _count(report, wanted, loaded)
        _finish(report, workers, progress)
    report.elapsed = time.monotonic() - begun
    return report


def _recipe(options: Options) -> tuple["Recipe", Options]:
    """What --features CONFIG makes of each clip, and the options with what CONFIG settles."""
    from dist_train import extraction  # imports torch: packing of audio does without

    assert options.features is not None
    recipe = extraction.recipe(options.features, options.feature_type)
    given = {name: value for name, value in options.coding().items() if value != getattr(Options, name)}
    return recipe, dataclasses.replace(options, **recipe.settles(given))


def _usable(
    samples: Sequence[Sample], options: Options, workers: int, report: Report, progress: Progress
) -> Iterator[Clip]:
    """The samples with readable headers that are long enough; the others go to the report."""
    paths = list(dict.fromkeys(sample.path for sample in samples))
    heads = dict(zip(paths, _spread(jobs.headers, paths, workers, "headers", progress), strict=True))
    if options.codec == "original":
        _whole(samples)
    used = 0
    for sample in samples:
        head = heads[sample.path]
        if isinstance(head, str):
            report.unreadable.append((sample.name, head))
        elif head.exact and packlist.seconds(sample, head) < options.min_seconds:
            report.short.append((sample.name, f"{packlist.seconds(sample, head):.3f} s"))
        else:
            used += 1
            yield sample, head
    if not used:
        name, reason = (report.unreadable or report.short)[0]
        raise ValueError(f"no recording can be used; the first, {name}, {reason}")


def _whole(samples: Sequence[Sample]) -> None:
    """ValueError where a recording's own bytes cannot stand for the sample."""
    for sample in samples:
        where = sample.where or sample.path
        if sample.start is not None or sample.end is not None:
            raise ValueError(f"{where}: a cut cannot keep its file's bytes; pack with another --codec than original")
        if sample.path.suffix.lower()[1:] not in AUDIO_SUFFIXES:
            raise ValueError(f"{where}: shards hold no {sample.path.suffix} files; pack with another --codec")


def _with_folds(clips: list[Clip], options: Options, workers: int, progress: Progress, say: Say) -> list[Clip]:
    """The clips with folds, made if the source brings neither folds nor splits or if they are asked for."""
    given = sum(sample.fold is not None for sample, _ in clips)
    if given and options.folds:
        raise ValueError(f"--folds {options.folds}: the source has folds of its own; leave the option out")
    if given or options.folds == 0 or (options.folds is None and any(sample.split for sample, _ in clips)):
        if 0 < given < len(clips):
            say(f"{len(clips) - given} clips have no fold")
        return clips
    k = options.folds or FOLDS
    names, labels = [sample.name for sample, _ in clips], [sample.labels for sample, _ in clips]
    equal = _digests(clips, workers, progress)
    bonds = [
        [("file", sample.path), *([("group", sample.group)] if sample.group else []), *equal.get(sample.path, [])]
        for sample, _ in clips
    ]
    numbers = folds.assign(names, labels, bonds, k)
    say(f"the clips get {k} folds, each with its share of every class; files of equal bytes or one group stay together")
    if thin := folds.thin(labels, numbers, k):
        say(f"too few separate recordings to be in every fold: {', '.join(thin[:10])}{' ...' * (len(thin) > 10)}")
    return [
        (dataclasses.replace(sample, fold=number), head) for (sample, head), number in zip(clips, numbers, strict=True)
    ]


def _digests(clips: list[Clip], workers: int, progress: Progress) -> dict[Path, list[tuple[str, bytes]]]:
    """A bond for each file that another has the size of: files of different sizes are different."""
    sizes = {sample.path: head.bytes for sample, head in clips}
    often = Counter(sizes.values())
    paths = [path for path, size in sizes.items() if often[size] > 1]
    found = _spread(jobs.digests, paths, workers, "digests", progress)
    return {path: [("bytes", digest)] for path, digest in zip(paths, found, strict=True)}


def _spread(
    job: Callable[[list[Path]], list[Result]], paths: list[Path], workers: int, stage: str, progress: Progress
) -> list[Result]:
    """`job` over all paths by handfuls; few of them are not worth a process."""
    handfuls = [paths[start : start + HANDFUL] for start in range(0, len(paths), HANDFUL)]
    results: list[Result] = []
    for part in jobs.in_order(job, handfuls, workers if len(paths) > 100 * HANDFUL else 1):
        results += part
        progress(stage, len(results), len(paths))
    return results


def _count(report: Report, wanted: Packlist, loaded: list[Loaded]) -> None:
    """Add up what the shards hold."""
    fold, split = Counter[int](), Counter[str]()
    for items, shard in zip(wanted.shards, loaded, strict=True):
        report.shards += shard.bytes > 0
        report.kept += shard.kept
        report.bytes += shard.bytes
        report.seconds += shard.seconds
        report.trimmed += shard.trimmed
        report.untrimmed += [items[place].sample.name for place in shard.untrimmed]
        report.unreadable += [(items[place].sample.name, reason) for place, reason in shard.left_out.items()]
        report.short += [(items[place].sample.name, "too short once decoded") for place in shard.short]
        without = {*shard.left_out, *shard.short}
        for sample in (item.sample for place, item in enumerate(items) if place not in without):
            report.clips += 1
            for label in sample.labels:
                report.classes[label] += 1
            fold.update([] if sample.fold is None else [sample.fold])
            split.update([sample.split] if sample.split else [])
    report.folds, report.splits = dict(sorted(fold.items())), dict(sorted(split.items()))
    if not report.clips:
        raise ValueError(f"{report.dest}: no recording could be decoded; the first, {': '.join(report.unreadable[0])}")


def _finish(report: Report, workers: int, progress: Progress) -> None:
    """Class list, list of what is left out, index."""
    loading.write_whole(report.dest / CLASSES, "".join(f"{name}\n" for name in report.classes).encode())
    lines = [f"{name}\t{reason}\n" for name, reason in sorted([*report.unreadable, *report.short])]
    if lines:
        loading.write_whole(report.dest / LEFT_OUT, "".join(lines).encode())
    else:
        (report.dest / LEFT_OUT).unlink(missing_ok=True)
    total = report.clips + len(report.unreadable) + len(report.short)
    if len(report.unreadable) > MAX_UNREADABLE * total:
        return
    report.indexed = True
    if report.kept == report.shards and _is_indexed(report.dest):
        return
    shards.build(report.dest, workers, lambda done, of: progress("index", done, of))


def _is_indexed(dest: Path) -> bool:
    try:
        shards.open_set(dest)
    except ValueError:
        return False
    return True
