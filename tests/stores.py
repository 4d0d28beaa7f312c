"""Shards in an object store, for the tests that compare what comes from there with local disk."""

from pathlib import Path

import numpy as np
import torch
from launches import Job
from servers import BUCKET, Seaweed

from dist_train import feed
from dist_train.settings import Config
from dist_train.stores.bucket import Bucket
from dist_train.view import View
from dist_train.world import Place, World


def upload(local: Path, name: str) -> str:
    """A folder's files as objects; their address."""
    address = f"s3://{BUCKET}/{name}"
    bucket = Bucket(address)
    for file in local.iterdir():
        if file.is_file():
            bucket.put(file.name, file)
    return address


def window_bytes(view: View, config: Config, epochs: int) -> int:
    """Bytes of PCM16 of the windows that the first epochs of a run train on."""
    world = World(Place(), torch.device("cpu"), "gloo", 1)
    plans = np.concatenate(list(feed.windows(view, config, world, 0, epochs * len(view))))
    stop = np.minimum(plans["first"] + plans["count"], plans["frames"].astype(np.int64))
    frames = stop - np.maximum(plans["first"], 0)
    return int((2 * frames * plans["channels"]).sum())


def train_through_restarts(job: Job, server: Seaweed, steps: tuple[int, ...]) -> None:
    """The job ends well, though its store is killed after each of the steps and started again."""
    for step in steps:
        job.until(lambda step=step: job.run.steps() >= step)  # type: ignore[misc]
        server.kill()
        server.start()
    assert job.wait() == [0] * len(job.ranks), job.text()
