"""The commands `audit` and `stats` of make_shards: their options and what they print."""

# make_shards reads this in every start: what is heavy is imported where it is needed.
import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from dist_train import screen

AUDIT = """\
example:
  python tools/make_shards.py audit shards/mine
says whether samples in different folds or splits belong together: one group, one recording, equal bytes, overlapping
time, near-duplicates by ear; and what knowing the group alone would score. A table needs no audio:
  python tools/make_shards.py audit table.csv --split every:10
has the header path,label[,fold][,group][,split][,start][,end], or is UrbanSound8K.csv or esc50.csv. Rules of --split:
  folds, splits      those in the data (both without --split)
  group, group:K     K folds (5) that keep groups together
  every:N            every Nth sample is tested
  random:P[:SEED]    a share P is tested
a line of the file of --allow is a group, or two groups or two samples parted by a tab: known, no leak.
Exit codes: 0 sound, 1 a leak, 2 bad input.
"""
STATS = """\
example:
  python tools/make_shards.py stats shards/mine
reads the index only; --deep hears every clip: clipping, clips that cannot be decoded. Exit codes: 0 done, 2 bad input.
"""


def forms(command: Callable[[str, str, str], argparse.ArgumentParser]) -> None:
    """Add both commands; command(name, about, epilog) makes the parser of one."""
    auditing = command("audit", "find leaks between folds, splits, or the parts of a rule", AUDIT)
    auditing.add_argument("dest", metavar="DEST|TABLE.csv", help="folder of shards, or a table without audio")
    auditing.add_argument("--split", metavar="RULE", help="audit this rule in place of what the data has (see below)")
    auditing.add_argument("--allow", type=Path, metavar="FILE", help="overlaps that are known (see below)")
    auditing.add_argument("--group", metavar="COLUMN", help="the table's column to take as group")
    auditing.add_argument("--quick", action="store_true", help="read the index only: no near-duplicates, no clipping")
    counting = command("stats", "classes, folds, lengths, rates, levels, silence", STATS)
    counting.add_argument("dest", metavar="DEST", help="folder of shards")
    counting.add_argument("--deep", action="store_true", help="hear every clip as well: clipping, unreadable clips")
    for form in (auditing, counting):
        form.add_argument("--json", action="store_true", help="everything as JSON")


def audit(options: argparse.Namespace) -> int:
    """Leaks, what they are worth, a verdict."""
    from dist_train.inspection import audit as auditing
    from dist_train.inspection import verdict

    with screen.bar(sys.stderr) as progress:
        found = auditing.audit(options.dest, options.split, options.allow, options.group, options.quick, progress)
    if options.json:
        screen.say(json.dumps(auditing.plain(found), ensure_ascii=False, indent=1))
    else:
        screen.show(verdict.sheets(found))
        screen.say("\n".join(verdict.lines(found)))
    return 1 if found.leaks else 0


def stats(options: argparse.Namespace) -> int:
    """What a set holds."""
    from dist_train.inspection import stats as counting
    from dist_train.shards import open_set

    one = open_set(options.dest)
    with screen.bar(sys.stderr) as progress:
        tick = partial(progress, "listening")
        found = counting.deep(one, tick) if options.deep else counting.measure(one)
    if options.json:
        screen.say(json.dumps(found, ensure_ascii=False, indent=1))
    else:
        screen.show(counting.sheets(found))
    return 0
