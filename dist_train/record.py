"""What a run leaves behind: log lines, metrics, checkpoints, result. In: the engine after each step; out: its folder.

Every rank has one and calls it alike, since counts meet over ranks here; only rank 0 writes.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dist_train import config as configuration
from dist_train import ending, flops, order
from dist_train.checkpoint import Checkpoints
from dist_train.frontend import FrontBatch
from dist_train.hosts.mirror import Mirror
from dist_train.layers import layers
from dist_train.log import Log
from dist_train.parts import Parts
from dist_train.result import titles
from dist_train.runs import RunFolder
from dist_train.scores import Scores, better
from dist_train.settings import effects
from dist_train.speed import Speed
from dist_train.start import Start
from dist_train.step import SHARED
from dist_train.view import View

_MASK = 2**64 - 1


class Record:
    """Counts since the last log line, and the files of the run."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.rate = 0.0
        self.last: FrontBatch | None = None
        self.stream = 0  # this rank's share since the last meeting
        self.bad: dict[int, str] = {}  # this rank's, since the last meeting
        self.found: dict[str, Scores] = {}
        self.folder: RunFolder | None = None
        self.mirror: Mirror | None = None
        self.checkpoints: Checkpoints | None = None
        self.log = Log(parts.world.first)
        self.speed = Speed(parts.world, parts.config.audio.seconds, parts.step.watch)
        self.saved = self.polled = time.monotonic()
        self.shown = False
        self.traced: Path | None = None  # where a profile lies
        self.stopping = False

    def open(self) -> None:
        """Lock the run folder, go on from its newest checkpoint, write what the run is made of."""
        parts = self.parts
        begun = Start(parts, self.log)
        self.folder, self.mirror, self.checkpoints = begun.folder, begun.mirror, begun.checkpoints
        if parts.config.features.norm == "dataset" and parts.front.statistics is None:
            parts.front.statistics = parts.measure()
        self._begin(begun)

    def _begin(self, begun: Start) -> None:
        parts, progress, world, where = self.parts, self.parts.progress, self.parts.world, begun.where
        if self.folder is None:
            return
        text = configuration.dump(parts.config)
        self.folder.begin(text, parts.facts())
        self.log.open(self.folder, parts.config.log.tensorboard, progress.step if where else None)
        self.log.config(text)
        shape = (parts.front.frame_count, parts.front.bins)
        self.log.layer_table(layers(parts.model, shape))
        self.speed.flops, self.speed.top = flops.per_clip(parts.model, shape), parts.peak()
        view = parts.views.train
        self.log.message(
            f"{len(view)} clips of {len(view.classes)} classes in {len(view.files)} shards; {world.size} ranks on "
            f"{world.device.type} ({world.backend}), {world.threads} threads each; run folder {self.folder.path}"
        )
        if view.left_out:
            shortest = parts.config.audio.min_seconds
            self.log.message(f"{view.left_out} clips under audio.min_seconds={shortest:g} are left out of training")
        if (few := parts.few()) is not None:
            self.log.warn(few)
        sound = parts.config.audio, parts.config.augment, parts.config.features
        unheard = [f"not heard in augmentation: {line}" for line in parts.front.bad]
        for line in [*unheard, *effects.traceless(*sound)]:
            self.log.warn(line)
        if where:
            self.log.message(f"goes on from {where}: step {progress.step}, {progress.consumed} clips consumed")
        for text in begun.changed:
            self.log.message(f"changed: {text}")
        if begun.report is not None:
            self.log.message(begun.report.text())
            if begun.report.warning is not None:
                self.log.warn(begun.report.warning)
        self.log.begin(progress.consumed, parts.total, progress.samples)

    def delivered(self, raw: NDArray[np.void], bad: list[tuple[int, str]]) -> None:
        """What the reader delivered for one group: its ids enter the checksum of the stream."""
        self.stream = (self.stream + order.stream_hash(raw["id"], raw["position"])) & _MASK
        self.bad.update(bad)

    def step_done(self, waited: float) -> bool:
        """Whether a log line was due, on all ranks at once. `waited`: seconds this rank waited for data, in all."""
        parts = self.parts
        due = parts.progress.step % parts.config.log.every == 0 or parts.progress.consumed >= parts.total
        if due:
            self._line(waited)
        else:
            self.log.tick(parts.progress.consumed)
        return due

    def meet(self) -> None:
        """Bring `progress.stream` and `progress.bad` up to date on all ranks. Errors: too many bad samples."""
        parts, progress = self.parts, self.parts.progress
        counts = torch.tensor([_signed(self.stream), len(self.bad)], dtype=torch.int64)
        parts.world.add(counts)
        progress.stream = (progress.stream + int(counts[0])) & _MASK
        self.stream = 0
        if int(counts[1]) == 0:
            return
        known = set(progress.bad)
        found = {number: why for part in parts.world.collect(self.bad) for number, why in part.items()}
        self.bad = {}
        for number in sorted(set(found) - known):
            self.log.warn(f"bad sample {parts.views.train.key(number)}: {found[number]}; it is given weight 0")
        progress.bad = sorted(known | set(found))
        limit = max(10, parts.config.data.max_bad * progress.samples)
        if len(progress.bad) > limit:
            raise ValueError(
                f"{len(progress.bad)} bad samples, more than data.max_bad allows ({limit:.0f}); the last: "
                f"{parts.views.train.key(progress.bad[-1])}; check the shards (tools/make_shards.py check)"
            )

    def _line(self, waited: float) -> None:
        parts, progress = self.parts, self.parts.progress
        self.meet()
        sums = parts.step.sums.clone()
        parts.world.add(sums[:SHARED])
        loss, right, weight, skipped, in_row, norm = sums.tolist()
        parts.step.sums[: SHARED + 1] = 0  # not the steps skipped in a row
        if in_row > parts.config.optim.max_skipped:
            raise ValueError(
                f"the gradient was not finite in {int(in_row)} steps in a row (step {progress.step}); lower optim.lr, "
                "set optim.clip, or precision=fp32"
            )
        record: dict[str, Any] = {
            "kind": "train",
            "step": progress.step,
            "consumed": progress.consumed,
            "epoch": progress.consumed / progress.samples,
            "loss": loss / max(weight, 1.0),
            "accuracy": right / max(weight, 1.0),
            "lr": self.rate,
            "stream": f"{progress.stream:016x}",
            **self.speed.figures(progress.consumed, waited),
            "bad_samples": len(progress.bad),
            "grad_norm": norm,
            "skipped": int(skipped),
        }
        if parts.config.objective.margin_epochs is not None:
            record["margin"] = parts.step.margin
        self.log.train(record)
        self._show()

    def _show(self) -> None:
        """Once: a few training windows as they reach the model, to look at and to listen to."""
        parts, count = self.parts, self.parts.config.log.examples
        batch, self.last = self.last, None
        if self.shown or batch is None or not count or self.folder is None or not parts.config.log.tensorboard:
            return
        self.shown = True
        labels = titles(batch, parts.views.train.classes, count)
        self.log.pictures(batch.feat_BTF[:count].float().cpu(), labels, parts.progress.step)
        self.log.clips(batch.wave_BT[:count].float().cpu(), parts.front.audio.sample_rate, labels, parts.progress.step)

    def scored(self, kind: str, view: View, scores: Scores | None) -> None:
        """Scores of an evaluation (rank 0 has them)."""
        if scores is None:
            return
        progress = self.parts.progress
        self.found[kind] = scores
        for number, why in scores.bad:
            self.log.warn(f"bad clip {view.key(number)} of the {kind} set counts as wrong: {why}")
        record = {"kind": kind, "step": progress.step, "consumed": progress.consumed, "epoch": progress.epoch}
        self.log.eval({**record, **scores.values, "clips": scores.clips, "bad_samples": len(scores.bad)})
        if kind == "eval" or self.parts.views.evaluation is None:
            classes = self.parts.views.train.classes
            if scores.confusion is not None:
                self.log.confusion(scores.confusion, classes, progress.step)
            else:
                self.log.precisions(scores.classes, classes, progress.step)

    def choose(self) -> None:
        """Keep the state of a new best score on the validation set."""
        parts, progress = self.parts, self.parts.progress
        if parts.views.valid is None:
            return
        metric = parts.metric
        value = parts.world.lead(lambda: self.found["valid"].values[metric])
        best = progress.best_value if progress.best_metric in (metric, None) else None
        won = better(metric, value, best)
        progress.judged(won, parts.config.optim)
        if won:
            progress.best_value, progress.best_step, progress.best_metric = value, progress.step, metric
            self.save(hold=True)
            if self.checkpoints is not None:
                self.checkpoints.mark_best(progress.step, value)

    def save(self, hold: bool = False) -> None:
        """A checkpoint of now, written in the background. `hold`: it stays until another is the best."""
        self.meet()
        self.saved = time.monotonic()
        sums = self.parts.world.add(self.parts.step.sums[:SHARED].clone())
        if self.checkpoints is not None:
            self.checkpoints.save(self.parts.progress.step, self.parts.payload(sums), hold)

    def stop_wanted(self) -> bool:
        """STOP lies in the run folder (looked at once a second, by rank 0). Errors: another job has the folder now."""
        now = time.monotonic()
        if self.folder is not None and not self.stopping and now - self.polled >= 1:
            self.polled = now
            self.folder.check()
            if self.mirror is not None:
                self.mirror.check()
            self.stopping = self.folder.stop_requested()
        return self.stopping

    def save_due(self) -> bool:
        """Minutes since the last checkpoint are over (on rank 0's clock)."""
        minutes = self.parts.config.checkpoint.every_minutes
        return self.folder is not None and minutes is not None and time.monotonic() - self.saved >= 60 * minutes

    def stopped(self) -> None:
        """Last words of a run that was asked to stop; the same command goes on."""
        self.parts.world.lead(self._stopped)

    def _stopped(self) -> None:
        assert self.folder is not None and self.checkpoints is not None
        self.checkpoints.wait()
        if self.mirror is not None:
            self.mirror.flush()
        self.folder.clear_stop()
        step = self.parts.progress.step
        self.log.message(f"stopped and saved at step {step} in {self.folder.path}; the same command goes on")

    def finish(self, stop: Callable[[], bool]) -> None:
        """result.json, scores.npz: of the final model, and of the best one where a validation set chose it."""
        parts = self.parts
        best = ending.best(parts, self.found, self._load_best, stop)
        parts.world.lead(lambda: self._finish(best))  # all ranks fail where rank 0 cannot write the result

    def _finish(self, best: dict[str, Any] | None) -> None:
        assert self.folder is not None and self.checkpoints is not None
        parts, progress = self.parts, self.parts.progress
        self.checkpoints.wait()
        scores = ending.write(parts, self.folder, self.found, best)
        if (speed := self.speed.summary()) is not None:
            self.log.message(f"{speed}; profile: {self.traced}" if self.traced is not None else speed)
        if self.mirror is not None:
            self.mirror.flush()
        score = (
            f"{parts.metric} {scores.values[parts.metric]:.4f} on {scores.clips} clips"
            if scores
            else "no evaluation set"
        )
        self.log.message(f"finished: {score} (final model, step {progress.step}); the run lies in {self.folder.path}")

    def _load_best(self) -> bytes:
        assert self.checkpoints is not None
        self.checkpoints.wait()
        found = self.checkpoints.best()
        if found is None:
            raise ValueError(f"{self.checkpoints.folder}: best.json or the checkpoint that it names is gone")
        return found[0].read_bytes()

    def close(self) -> None:
        """Let go of the folder."""
        self.log.close()
        if self.checkpoints is not None:
            with suppress(ValueError, OSError):  # what ends the run already may not be hidden
                self.checkpoints.wait()
        if self.mirror is not None:
            self.mirror.close()
        if self.folder is not None:
            self.folder.close()


def _signed(value: int) -> int:
    """The int64 with the same bits as an unsigned 64-bit number."""
    return value - 2**64 if value >= 2**63 else value
