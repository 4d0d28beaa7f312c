"""What only a GPU shows: the front end's rate, its share of a step, and whole training beside macls with 16 workers."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from dist_train import parts
from dist_train.bench import chain, fbank, material, peer, reading, roof, training, whole
from dist_train.bench.pair import paired
from dist_train.bench.row import Row, Work, rate
from dist_train.config import check
from dist_train.frontend import FrontEnd
from dist_train.reader import Reader
from dist_train.settings import Features
from dist_train.storage import Files

BATCH, SECONDS, WORKERS = 512, 3.0, 16


def elapsed(side: Callable[[], Any], times: int) -> float:
    """Seconds of the GPU's own clock for one call, over `times` calls in a row after one to warm up."""
    side()
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begun.record()
    for _ in range(times):
        side()
    ended.record()
    ended.synchronize()
    return per_call(begun.elapsed_time(ended), times)


def per_call(milliseconds: float, times: int) -> float:
    """Seconds a call."""
    return milliseconds / 1e3 / times


def audio_rate(rows: int, clip_seconds: float, spent: float) -> float:
    """Seconds of audio a second."""
    return rows * clip_seconds / spent


def share(front: float, step: float) -> float:
    """The front end's part of a step that includes it."""
    return front / (front + step)


def features(work: Work) -> list[Row]:
    """Batched Fbank beside the torchaudio loop on the same GPU."""
    wave_BT, ours = material.waves(work, BATCH).to(work.device), fbank.bank(work.device)
    kaldi, version = peer.take("torchaudio.compliance.kaldi")
    theirs = (lambda: fbank.torchaudio_loop(kaldi, wave_BT)) if kaldi else None
    pair = paired(lambda: ours(wave_BT), theirs, work.times)
    said = {"peer": "torchaudio loop", "version": version, "goal": 50.0}
    speed = audio_rate(BATCH, SECONDS, elapsed(lambda: ours(wave_BT), 20))
    return [
        rate("gpu", f"Fbank, {BATCH} x 3 s", pair, BATCH, "clips/s", **said),
        Row("gpu", "Fbank alone", "audio s/s", ours=speed, goal=1e6),
    ]


def front_end(work: Work) -> list[Row]:
    """The whole front end with noise and reverb; then its share of an ECAPA-512 step."""
    folders = material.noises(work), material.rooms(work)
    audio, augment = chain.settings(*folders)
    view = material.opened(material.shard_folder(work, 2048, SECONDS))
    front = FrontEnd(audio, augment, Features(), seed=0, device=work.device)  # type: ignore[call-arg]
    requests = reading.requests(view, BATCH, chain.planner(view, audio, augment))
    with Reader(Files(view.files), requests, 1, 1, pin=True) as reader:
        raw = next(reader)
        spent = elapsed(lambda: front(raw, True), 20)
        given = front(raw, True)
    config = training.configuration("ecapa", BATCH)
    side, _ = training.ours(config, given, work.device)
    step = elapsed(side, 10)
    stream = reading.Stream(view, BATCH, reading.whole(view))
    read = stream.timed(2048) / 2048
    clip = spent / BATCH * 1e6, step / BATCH * 1e6
    advice = roof.advise(read * 1e6, *clip, shared=False, cores=os.cpu_count() or 1)
    return [
        Row("gpu", "advice", "threads", ours=advice.threads, note=f"ECAPA-512, eager: {advice.text}"),
        Row("gpu", "front end with noise and reverb", "utterances/s", ours=BATCH / spent, goal=150e3),
        Row("gpu", "its share of an ECAPA-512 step", "share", ours=share(spent, step), goal_most=0.05, note="eager"),
    ]


def against_macls(name: str) -> Callable[[Work], list[Row]]:
    """Training from stored clips: ours with two reader threads, macls with 16 worker processes."""

    def measure(work: Work) -> list[Row]:
        clips, rows, steps = 4096, 64, 40
        module, version = peer.take("macls.models")
        chosen = {"model": {"name": name}, "data": {"batch_size": rows, "micro_batch": rows, "threads": 2}}
        chosen |= {"audio": {"target_db": -20.0}, "augment": {"spec": {"probability": 0.5}}}
        config = check(chosen, "bench")
        trainer = whole.Trainer(material.shard_folder(work, clips, SECONDS), config, work.device)
        theirs = Workers(work, name, clips, rows) if module else None
        pair = paired(lambda: trainer.run(steps), (lambda: theirs.run(steps)) if theirs else None, min(work.times, 3))
        workers = min(WORKERS, os.cpu_count() or 1)
        said = {"peer": f"macls, {workers} workers", "version": version, "goal": training.PEER_GOALS.get(name)}
        return [rate("gpu", f"{name}, training end to end", pair, steps * rows, "clips/s", **said)]

    return measure


class Workers:
    """macls: its dataset in worker processes, its network, the same optimizer and precision."""

    def __init__(self, work: Work, name: str, clips: int, rows: int) -> None:
        from macls.data_utils.collate_fn import collate_fn

        dataset = chain.dataset(material.clip_list(work, clips, SECONDS))
        self.loader = DataLoader(
            dataset,
            rows,
            shuffle=True,
            drop_last=True,
            collate_fn=collate_fn,
            num_workers=min(WORKERS, os.cpu_count() or 1),
            persistent_workers=True,
            pin_memory=True,
        )
        config = training.configuration(name, rows)
        self.given = training.batch(rows, 298, work.device)
        half = parts.precision(config, training.world(work.device))
        self.step, _ = training.macls(name, self.given, work.device, half)

    def run(self, steps: int) -> float:
        """Seconds of so many steps; the first two, which start the workers, do not count."""
        import time

        source, begun = self._endless(), 0.0
        for number in range(steps + 2):
            if number == 2:
                torch.cuda.synchronize()
                begun = time.perf_counter()
            found, labels, _ = next(source)
            self.given.feat_BTF = found.to(self.given.feat_BTF.device, non_blocking=True)
            self.given.label_B = labels.to(self.given.label_B.device, non_blocking=True)
            assert self.step is not None
            self.step()
        torch.cuda.synchronize()
        return time.perf_counter() - begun

    def _endless(self) -> Iterator[Any]:
        while True:
            yield from self.loader


MEASUREMENTS: dict[str, Callable[[Work], list[Row]]] = {
    "gpu/fbank": features,
    "gpu/front end": front_end,
    **{f"gpu/{name}": against_macls(name) for name in ("ecapa", "cnn10", "tdnn", "eres2net") if name in training.OURS},
}
