#!/usr/bin/env python3
"""Embeddings of clips by a trained run, as an .npz of `keys` (N) and `embeddings` (N x E, float32); rates of trials.

Example:
  python tools/embed.py runs/speakers /tmp/eval.npz --shards shards/voxceleb1_test --trials veri_test2.txt --center

Without --shards the run's evaluation set is embedded. A clip's embedding is the mean over its windows; settings are
the run's, but for the overrides, e.g. evaluation.clip=full. A best checkpoint goes before the last.
Trials are lines `1 CLIP CLIP` or `CLIP CLIP target`; a clip is named by its key in the shards, or by its packed path.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dist_train.settings import Config
    from dist_train.trials import Trials
    from dist_train.view import View

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 written, 2 bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, e.g. runs/demo")
    parser.add_argument("dest", type=Path, metavar="DEST", help="file to write, ending in .npz")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the run's")
    parser.add_argument("--shards", nargs="+", metavar="FOLDER", help="embed all clips of these shards")
    parser.add_argument("--normalise", action="store_true", help="embeddings of length 1")
    parser.add_argument("--trials", type=Path, metavar="FILE", help="trials: print EER and minDCF of cosine scores")
    parser.add_argument("--center", action="store_true", help="trials: subtract the mean of all embeddings first")
    options = parser.parse_intermixed_args(argv)
    from dist_train import command

    return command.run("embed", partial(embed, options))


def embed(options: argparse.Namespace) -> int:
    """Embed, write, score the trials."""
    from dist_train import folder

    if options.dest.suffix != ".npz":
        raise ValueError(f"{options.dest}: embeddings are written as .npz; end the name so")
    if options.center and options.trials is None:
        raise ValueError("--center changes the scores of trials only; give --trials, or leave it out")
    folder.trained(options.run)
    from dist_train import disk, embeddings, packed, saved, trials, world
    from dist_train.console import bar

    config = saved.read(options.run, options.overrides)
    clips = chosen(options.shards, config)
    listed = None  # read first: a mistake in the list shows before the work
    if options.trials is not None:
        listed = trials.read(options.trials, [clips.key(number) for number in range(len(clips))])
    disk.writable(options.dest.parent)
    place = world.start(config.run.timeout, config.run.threads, config.run.deterministic)
    network = saved.load(options.run, options.overrides, place, packed.of_view(clips))
    with bar("embedding") as progress:
        found = embeddings.embed(network.model, clips, network.config, network.front, progress)
    for number, reason in found.bad:
        print(f"embed: {found.keys[number]} cannot be read, its embedding is NaN: {reason}", file=sys.stderr)
    vectors = found.vectors_NE
    if options.normalise:
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    disk.replace(options.dest, lambda file: np.savez(file, allow_pickle=False, keys=found.keys, embeddings=vectors))
    print(f"{len(vectors)} embeddings of {vectors.shape[1]} numbers by {network.path} in {options.dest}")
    if listed is not None:
        verify(options.trials, listed, vectors.astype(np.float64), options.center)
    return 0


def chosen(folders: list[str] | None, config: "Config") -> "View":
    """The clips of shard folders, else of the run's evaluation set, else of its validation set."""
    from dist_train import feed, view

    if folders:
        return view.choose(feed.opened(config, folders))
    views = feed.views(config)
    if (found := views.evaluation or views.valid) is None:
        raise ValueError("the run has no evaluation set; give --shards FOLDER")
    return found


def verify(path: Path, listed: "Trials", vectors: "NDArray[np.float64]", center: bool) -> None:
    """Print the error rates of a list of trials."""
    from dist_train import trials

    good = np.isfinite(vectors).all(1)
    if not good[[*listed.first_T, *listed.second_T]].all():
        raise ValueError(f"{path}: names a clip that cannot be read; take it out, or mend the shards")
    scores = trials.cosine(np.where(good[:, None], vectors, vectors[good].mean(0)), listed, center)
    rate, cost = trials.equal_error_rate(scores, listed.same_T), trials.least_cost(scores, listed.same_T)
    print(
        f"EER {100 * rate:.4f} %, minDCF(0.01) {cost:.4f}, {len(scores)} trials, {listed.same_T.sum()} of them targets"
    )


if __name__ == "__main__":
    sys.exit(main())
