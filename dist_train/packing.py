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

from dist_train import disk
from dist_train.archive import index
from dist_train.archive.row import CLASSES, FEATURES
from dist_train.archive.scan import AUDIO_SUFFIXES
from dist_train.assembly import intake, jobs, loading, packlist
from dist_train.assembly.jobs import Coding, Crew, Progress
from dist_train.assembly.loading import Keep, Loaded
from dist_train.assembly.options import Options
from dist_train.assembly.packlist import Item, Packlist
from dist_train.assembly.permit import claimed, shard_name
from dist_train.sources import classes, folds, layouts
from dist_train.sources.recordings import Header
from dist_train.sources.samples import Sample
from dist_train.stores import desk, indexing
from dist_train.stores.desk import Desk
from dist_train.stores.indexing import list_left_out
from dist_train.stores.part import WHOLE, WORK, Part

if TYPE_CHECKING:
    from dist_train.assembly.extraction import Recipe

FOLDS = 5
MAX_UNREADABLE = 0.01
HANDFUL = 64  # files a task: a header takes less time than a message

Say = Callable[[str], None]
"""Called with a line for people."""
Clip = tuple[Sample, Header]
Result = TypeVar("Result")


@dataclass
class Report:
    """What was packed. unreadable: (clip, reason); short: clips under min_seconds; untrimmed: clips kept whole, for
    trimming found nothing to keep in them; trimmed: seconds cut away; kept: shards that were there before; of: shards
    of all parts. sound: not too many recordings were unreadable; indexed: sound, and not a part of a packing."""

    dest: str
    layout: str
    classes: dict[str, int] = field(default_factory=dict)
    part: Part = WHOLE
    of: int = 0
    clips: int = 0
    seconds: float = 0.0
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
    sound: bool = False
    indexed: bool = False


def pack(
    source: Path | str,
    dest: Path | str,
    options: Options,
    progress: Progress = lambda stage, done, total: None,
    say: Say = lambda line: None,
) -> Report:
    """Pack `source` into `dest` and index it; a part of it with `options.part`, which `index` then merges.

    ValueError, one line: bad options, table rows, files or classes; a folder that holds something else; a full disk.
    PermissionError, Unreachable: of a store. With more than 1 % of the clips unreadable everything else is packed, but
    not indexed: Report.indexed is False.
    """
    begun = time.monotonic()
    options.check(source, dest)
    workers, recipe = options.workers or index.cores(), None
    if options.features is not None:
        recipe, options = _recipe(options)
    with (
        desk.opened(dest, options.patience) as place,
        intake.opened(source, options.patience, options.part.whole, say) as (root, spread),
    ):
        crew = Crew(workers, progress, spread)
        report = _pack(source, root, place, options, recipe, crew, say)
    report.elapsed = time.monotonic() - begun
    return report


def _pack(
    source: Path | str,
    root: Path,
    place: Desk,
    options: Options,
    recipe: "Recipe | None",
    crew: Crew,
    say: Say,
) -> Report:
    """`root`: where the source lies, or is mirrored."""
    found = layouts.read(root, options.layout, options.group, options.group_regex, tuple(options.where))
    names = classes.read(options.classes) if options.classes else None
    samples, ordered, notes = classes.choose(found.samples, names)
    if names is None and found.classes is not None:
        ordered = found.classes
    for line in (f"{source}: read as layout {found.layout}", *found.notes, *notes):
        say(line.replace(str(root), str(source)))
    report = Report(place.said, found.layout, dict.fromkeys(ordered, 0), part=options.part)
    clips = list(_usable(samples, options, report, crew))
    clips = _with_folds(clips, options, crew, say)
    form = (options.codec, options.sample_rate, options.channels)
    if recipe is not None:
        form = (recipe.kind, recipe.stored.rate, recipe.stored.bins)
    wanted = packlist.build(clips, *form, int(options.shard_mb * (1 << 20)))
    report.of = len(wanted.shards)
    made = {} if recipe is None else {"features": recipe.stored.record(), "feature_type": recipe.kind}
    with claimed(place, wanted, options.coding() | {"classes": list(ordered)} | made, options.part):
        if recipe is not None:
            _lay(place, FEATURES, recipe.record(), options.part)
        _load(report, place, wanted, options, recipe, crew)
    return report


def _load(report: Report, place: Desk, wanted: Packlist, options: Options, recipe: "Recipe | None", crew: Crew) -> None:
    """Our shards, and what lies beside them."""
    coding = Coding(
        options.codec, options.sample_rate, options.channels, options.min_seconds, options.trimming(), recipe
    )
    numbers, keep = options.part.own(range(len(wanted.shards))), None
    if not options.part.whole or place.bucket is not None:
        keep = Keep(list(report.classes), index.read_features(place.root)["rate"])
    report.unreadable, report.short = options.part.own(report.unreadable), options.part.own(report.short)
    loaded = loading.load(place, wanted, numbers, coding, crew, keep)
    _count(report, [wanted.shards[number] for number in numbers], loaded)
    _finish(report, place, numbers, loaded, crew)


def _recipe(options: Options) -> tuple["Recipe", Options]:
    """What --features CONFIG makes of each clip, and the options with what CONFIG settles."""
    from dist_train.assembly import extraction  # imports torch: packing of audio does without

    assert options.features is not None
    recipe = extraction.recipe(options.features, options.feature_type)
    given = {name: value for name, value in options.coding().items() if value != getattr(Options, name)}
    return recipe, dataclasses.replace(options, **recipe.settles(given))


def _lay(place: Desk, name: str, data: bytes, own: Part) -> None:
    """A file beside the shards that all parts write alike, perhaps at one time: each under a name of its own first."""
    made = place.root / WORK / f"{name}-{own.number}"
    loading.write_whole(made, data)
    made.replace(place.root / name)
    place.put(name)


def _usable(samples: Sequence[Sample], options: Options, report: Report, crew: Crew) -> Iterator[Clip]:
    """The samples with readable headers that are long enough; the others go to the report."""
    paths = list(dict.fromkeys(sample.path for sample in samples))
    heads = dict(zip(paths, _spread(jobs.headers, paths, "headers", crew), strict=True))
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


def _with_folds(clips: list[Clip], options: Options, crew: Crew, say: Say) -> list[Clip]:
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
    equal = _digests(clips, crew)
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


def _digests(clips: list[Clip], crew: Crew) -> dict[Path, list[tuple[str, bytes]]]:
    """A bond for each file that another has the size of: files of different sizes are different."""
    sizes = {sample.path: head.bytes for sample, head in clips}
    often = Counter(sizes.values())
    paths = [path for path, size in sizes.items() if often[size] > 1]
    found = _spread(jobs.digests, paths, "digests", crew)
    return {path: [("bytes", digest)] for path, digest in zip(paths, found, strict=True)}


def _spread(job: Callable[[list[Path]], list[Result]], paths: list[Path], stage: str, crew: Crew) -> list[Result]:
    """`job` over all paths by handfuls; few of them are not worth a process."""
    handfuls = [paths[start : start + HANDFUL] for start in range(0, len(paths), HANDFUL)]
    results: list[Result] = []
    for part in crew.spread(job, handfuls, crew.workers if len(paths) > 100 * HANDFUL else 1):
        results += part
        crew.progress(stage, len(results), len(paths))
    return results


def _count(report: Report, shards: list[list[Item]], loaded: list[Loaded]) -> None:
    """Add up what the shards hold."""
    fold, split = Counter[int](), Counter[str]()
    for items, shard in zip(shards, loaded, strict=True):
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
    if shards and not report.clips:
        raise ValueError(f"{report.dest}: no recording could be decoded; the first, {': '.join(report.unreadable[0])}")


def _finish(report: Report, place: Desk, numbers: list[int], loaded: list[Loaded], crew: Crew) -> None:
    """Class list, list of what is left out; index, or the part's own record."""
    _lay(place, CLASSES, "".join(f"{name}\n" for name in report.classes).encode(), report.part)
    total = report.clips + len(report.unreadable) + len(report.short)
    sound = len(report.unreadable) <= MAX_UNREADABLE * total
    left_out = sorted([*report.unreadable, *report.short])
    if not report.part.whole:
        shards = [shard_name(number) for number, shard in zip(numbers, loaded, strict=True) if shard.bytes]
        name = f"{WORK}/{report.part.file('done')}"
        disk.replace_json(place.root / name, {"shards": shards, "left_out": left_out})
        place.put(name)
        report.sound = sound
        return
    list_left_out(place, left_out)
    report.sound = report.indexed = sound
    if sound and not (report.kept == report.shards and indexing.indexed(place)):
        indexing.write(place, crew.workers, lambda done, of: crew.progress("index", done, of))
