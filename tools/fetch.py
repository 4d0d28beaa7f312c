#!/usr/bin/env python3
"""Download a published data set from its official address, check it, unpack it, and say what to do next.

Example:
  python tools/fetch.py esc50 recordings

leaves recordings/ESC-50, ready for make_shards, and says its licence and the command that packs it. Cut off, killed, or
the disk full? The same command goes on from there. --list shows all data sets with size and licence.
Archives that you have already go into DEST/NAME.archives/ and are checked and unpacked from there.
Proxies are taken from the environment (https_proxy, no_proxy). Exit codes: 0 there, 2 not (one line says why).
"""

import argparse
import shlex
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dist_train.fetch.catalogue import Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 there, 2 not."""
    options = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from dist_train import command

    return command.run("fetch", partial(fetch, options), "stopped; the same command goes on")


def parser() -> argparse.ArgumentParser:
    """Every option."""
    from dist_train.fetch.catalogue import DATASETS

    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("name", nargs="?", choices=DATASETS, metavar="NAME", help=", ".join(DATASETS))
    top.add_argument("dest", nargs="?", type=Path, metavar="DEST", help="folder below which it is to lie")
    top.add_argument("--keep", action="store_true", help="keep the archives, in DEST/NAME.archives")
    top.add_argument("--list", action="store_true", help="show the data sets, download nothing")
    return top


def fetch(options: argparse.Namespace) -> int:
    """Say, fetch, say again."""
    from dist_train import screen
    from dist_train.fetch import obtain
    from dist_train.fetch.catalogue import DATASETS

    if options.list:
        for name, one in DATASETS.items():
            print("\n  ".join([f"{name}: {one.about}", *terms(one)]))
        return 0
    if options.dest is None:
        raise ValueError("give NAME and DEST, e.g.: python tools/fetch.py esc50 recordings; --list shows the names")
    one = DATASETS[options.name]
    print("\n".join([f"{one.title}: {one.about}", *terms(one)]), flush=True)
    with screen.bar() as progress:
        home = obtain.obtain(one, options.dest, options.keep, progress, screen.say)
    print("\n".join(after(one, home)))
    return 0


def terms(one: "Dataset") -> Iterator[str]:
    """Size, licence, whom to cite."""
    yield f"{one.download / 1e9:.1f} GB to download, {one.unpacked / 1e9:.1f} GB unpacked; {one.page}"
    yield f"licence: {one.licence}"
    yield f"cite: {one.cite}"


def after(one: "Dataset", home: Path) -> Iterator[str]:
    """Where it is, and what comes next."""
    yield f"{home}: {one.title} is there, with {home / 'fetched.json'} on where it came from"
    yield f"licence: {one.licence}"
    yield f"cite: {one.cite}"
    yield "next:"
    yield f"  python tools/make_shards.py pack {shlex.quote(str(home))} {one.pack}"
    yield f"  ./launch.sh {one.recipe}"


if __name__ == "__main__":
    sys.exit(main())
