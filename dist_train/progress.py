"""Where a run stands: one integer of consumed positions, and what makes that integer mean the same again.

In: configuration, view, checkpoint; out: a checked state, the same on all ranks, and the checkpoint's payload.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from dist_train import config as configuration
from dist_train.objective import MARGINS
from dist_train.settings import Config, Optim

VERSION = 1
_FREE = {"run.epochs", "run.max_steps", "run.threads", "run.timeout", "run.resume", "run.name", "run.dir"}
_FREE |= {
    "data.threads",
    "data.ahead",
    "data.max_bad",
    "data.patience",
    "data.shards",
    "data.eval_shards",
    "data.valid_shards",
    "data.cache_dir",
    "data.cache_gb",
}
_FREE_SECTIONS = ("log.", "checkpoint.", "evaluation.")


@dataclass
class Progress:
    """State of the stream (docs/order.md) and of the run. `stream` and `bad` are up to date on log and save steps."""

    seed: int
    view: str
    samples: int
    lanes: int
    window: int
    micro_batch: int
    consumed: int = 0
    stream: int = 0
    step: int = 0
    evaluated: int = 0  # epochs that have been evaluated
    evaluated_step: int = -1  # step of the last evaluation
    bad: list[int] = field(default_factory=list)
    best_value: float | None = None
    best_step: int | None = None
    waited: int = 0  # evaluations since the best one or the last reduction (optim.schedule=plateau)
    reductions: int = 0  # of the learning rate, by plateaus
    best_metric: str | None = None
    version: int = VERSION

    @property
    def epoch(self) -> int:
        """Epochs that are complete."""
        return self.consumed // self.samples

    def judged(self, better: bool, settings: Optim) -> None:
        """An evaluation on the validation set is over, `better` than all before or not: a plateau lowers the rate."""
        self.waited = 0 if better else self.waited + 1
        if settings.schedule == "plateau" and self.waited == settings.patience:
            self.waited, self.reductions = 0, self.reductions + 1

    def state(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        return asdict(self)

    def resume(self, state: dict[str, Any]) -> None:
        """Take over a saved state that `fits`."""
        for name, value in state.items():
            setattr(self, name, value)

    def fits(self, state: dict[str, Any], where: str) -> None:
        """Errors: `ValueError` where a saved state belongs to other data or another order."""
        if state["version"] != VERSION:
            raise ValueError(f"{where}: has state version {state['version']}, this program reads {VERSION}")
        if state["view"] != self.view:
            raise ValueError(
                f"{where}: belongs to another view of the data ({state['samples']} samples then, {self.samples} now): "
                "shards, folds, splits, balance or min_seconds differ; give the same, or run.resume=never"
            )
        for name in ("seed", "lanes", "window", "micro_batch"):
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"{where}: was made with {name} {state[name]}, now {getattr(self, name)}: the order of samples "
                    "would change in mid-run; give the same, or run.resume=never"
                )


def changes(before: dict[str, Any], now: Config) -> list[str]:
    """`key: old -> new` for each key of the configuration that differs and matters to the weights."""
    old, new = dict(configuration.flat(before)), dict(configuration.flat(configuration.plain(now)))
    keys = [key for key in {**new, **old} if key not in _FREE and not key.startswith(_FREE_SECTIONS)]
    return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in keys if old.get(key) != new.get(key)]


def refuse(before: dict[str, Any], now: Config, where: str) -> None:
    """Errors: `ValueError` naming every changed key, where a run would go on with other settings unasked."""
    refuse_model(before, now, where)
    if changed := changes(before, now):
        raise ValueError(
            f"{where}: was made with other settings ({'; '.join(changed)}); give the same, go on with the new ones by "
            f"run.resume={where}, or start anew by run.resume=never"
        )


def refuse_model(before: dict[str, Any], now: Config, where: str, remedy: str = "give another run.name") -> None:
    """Errors: `ValueError` where the checkpoint's weights are those of another network."""
    shape: tuple[str, ...] = ("model.", "features.bins", "features.ceps", "features.name", "features.hf")
    shape += ("audio.channels",)
    begin = ("model.pretrained", "model.freeze_epochs")  # the same network, from elsewhere
    old = before.get("objective", {})
    shape += ("objective.name",) if (old.get("name") in MARGINS) != (now.objective.name in MARGINS) else ()
    shape += tuple(f"objective.{key}" for key in ("subcenters", "speed_classes") if key in old)
    shape += ("augment.speed:",) if old.get("speed_classes") and now.objective.speed_classes else ()
    differing = [text for text in changes(before, now) if text.startswith(shape)]
    if other := [text for text in differing if not text.startswith(begin)]:
        raise ValueError(f"{where}: is a checkpoint of another model ({'; '.join(other)}); {remedy}")
