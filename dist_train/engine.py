"""The training loop: a table of contents of a run.

parts -> lock the folder, resume -> [evaluate when due, save when due, step, log] ... -> score -> result
"""

import gc
import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from dist_train import objective, optim, order
from dist_train.feed import Feed, ahead, windows
from dist_train.parts import Parts
from dist_train.record import Record
from dist_train.trace import Trace

SAVE, STOP = 1, 2  # what a rank may wish for between two steps


class Engine:
    """One run on one rank, from its newest checkpoint to its end."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.record = parts, Record(parts)
        self.config, self.world, self.views, self.progress = parts.config, parts.world, parts.views, parts.progress
        self.scored_step = -1  # of the last evaluation in this process
        self.asked = False  # a signal asked for the end

    def run(self) -> bool:
        """Train to the end. False where a signal or STOP ended it before; its state is saved then."""
        self._listen()
        try:
            self.record.open()
            self.parts.step.prime(min(self.config.data.micro_batch, self.config.data.batch_size))
            self.trace = self._trace()
            self.feed = self._feed()
            try:
                with collections_when_told():
                    finished = self._loop()
            finally:
                self.feed.close()
                self.trace.close()
                self.record.traced = self.trace.path
            if finished:
                self.record.finish(self._stop_asked)
        finally:
            self.record.close()
        return finished

    def _loop(self) -> bool:
        progress, agreed = self.progress, 0
        self.record.speed.begin(progress.consumed, self.feed.source)
        while True:
            if self._due():
                with self.record.speed.paused():
                    agreed = agreed if self._evaluate() else STOP
                gc.collect()
            if agreed in (SAVE, STOP):
                self.record.save()
                gc.collect()
            if agreed == STOP:
                self.record.stopped()
                return False
            if progress.consumed >= self.parts.total:
                return True
            before = progress.consumed
            self.trace.before(progress.step + 1)
            self._step()
            self.trace.after(progress.step)
            if self.record.step_done(self.feed.waited):
                gc.collect()
            agreed = max(self.world.agree(self._wish()), SAVE if self._mark(before) else 0)

    def _step(self) -> None:
        progress, data = self.progress, self.config.data
        size = order.step_size(progress.consumed, self.parts.total, data.batch_size, data.micro_batch)
        groups = len(order.group_bounds(size, data.micro_batch)) - 1
        mine = [self.feed.take() for _ in order.rank_groups(groups, self.world.rank, self.world.size)]
        settings, frozen = self.config.optim, progress.consumed < self.config.model.freeze_epochs * progress.samples
        rate = optim.learning_rate(progress.consumed, self.parts.total, progress.samples, settings, progress.reductions)
        firsts = [int(raw.plan["position"][0]) for raw, _ in mine]
        margin = objective.margin(progress.consumed, progress.samples, self.config.objective)
        batches = [batch for _, batch in mine]
        self.parts.step.run(batches, firsts, size, groups, rate, frozen=frozen, margin=margin)
        progress.consumed += size
        progress.step += 1
        for raw, _ in mine:
            self.record.delivered(raw.plan, raw.bad)
        self.record.rate, self.record.last = rate, mine[0][1] if mine else self.record.last

    def _trace(self) -> Trace:
        record = self.record
        folder = record.folder.path / "trace" if record.folder is not None else None
        return Trace(self.config.log.profile, folder, self.world.device, record.log.message)

    def _feed(self) -> Feed:
        where = self.views.train, self.config, self.world, self.progress.consumed, self.parts.total
        several, note = self.config.objective.name == "bce", self.record.log.warn
        front, view = self.parts.front, self.views.train
        return Feed(view, windows(*where), front, self.config, True, targets=several, plan=ahead(*where), note=note)

    def _due(self) -> bool:
        """An evaluation is due: so many epochs are over, or the run is."""
        progress = self.progress
        if self.views.evaluation is None and self.views.valid is None:
            return False
        over = progress.consumed >= self.parts.total and self.scored_step != progress.step
        return over or progress.epoch >= progress.evaluated + self.config.evaluation.every_epochs

    def _evaluate(self) -> bool:
        """Score the evaluation set, and the validation set where there is one. False: asked to stop meanwhile."""
        for kind, view in (("valid", self.views.valid), ("eval", self.views.evaluation)):
            if view is None:
                continue
            scores = self.parts.score(view, self._stop_asked)
            if self.world.lead(lambda found=scores: found is None):  # type: ignore[misc]
                return False
            self.record.scored(kind, view, scores)
        progress = self.progress
        self.scored_step = progress.evaluated_step = progress.step
        progress.evaluated = progress.epoch
        self.record.choose()
        return True

    def _stop_asked(self) -> bool:
        """All ranks agree to stop; asked equally often on all of them."""
        return self.world.agree(self._wish()) == STOP

    def _mark(self, before: int) -> bool:
        """An epoch mark of checkpoints lies in the step that began at `before`."""
        epochs = self.config.checkpoint.every_epochs
        if epochs is None:
            return self.progress.consumed >= self.parts.total
        span = epochs * self.progress.samples
        return math.floor(self.progress.consumed / span) > math.floor(before / span) or (
            self.progress.consumed >= self.parts.total
        )

    def _wish(self) -> int:
        if self.asked or self.record.stop_wanted():
            return STOP
        return SAVE if self.record.save_due() else 0

    def _listen(self) -> None:
        for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._hear)

    def _hear(self, number: int, frame: object) -> None:
        if self.asked:  # a second Ctrl-C does not wait for the step
            signal.signal(number, signal.SIG_DFL)
        self.asked = True


@contextmanager
def collections_when_told() -> Iterator[None]:
    """No garbage collection but by name, at the same step on all ranks: each one that collects makes all others wait.

    What the run is made of is left out of them.
    """
    was = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was:
            gc.enable()
