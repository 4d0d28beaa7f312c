"""A run's folder and `run.resume` -> the checkpoint that the run goes on from, on every rank.

auto    the newest sound checkpoint of this run; other settings that matter to the weights are refused
never   a fresh start; what the folder held goes to checkpoints/old
PATH    that checkpoint, whatever the settings; once the run has a newer one made with them, that one
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dist_train import checkpoint
from dist_train.checkpoint import Checkpoints
from dist_train.progress import Progress, changes, refuse, refuse_model
from dist_train.runs import RunFolder
from dist_train.settings import Config


@dataclass(frozen=True)
class Origin:
    """Where a run goes on from: a payload and the name of its file; nothing for a fresh start."""

    payload: dict[str, Any] | None = None
    where: str = ""
    changed: tuple[str, ...] = ()
    kept: int = -1  # checkpoints after this step were given up


def origin(config: Config, now: Progress, total: int, folder: RunFolder, checkpoints: Checkpoints) -> Origin:
    """Rank 0 chooses; metrics.jsonl is cut at the checkpoint. `now`: of a fresh start; `total`: positions of the run.

    Errors: `ValueError` where the checkpoint does not fit; the folder is untouched then.
    """
    wish = config.run.resume
    if wish == "never":
        checkpoints.cut(-1)
        folder.cut_metrics(-1)
        return Origin()
    found = checkpoints.newest()
    if wish == "auto":
        if found is None:
            folder.cut_metrics(-1)
            return Origin()
        path, payload = found
        refuse(payload["config"], config, str(path))
        chosen = Origin(payload, str(path), kept=payload["progress"]["step"])  # later files are broken
    elif found is not None and not changes(found[1]["config"], config):
        chosen = Origin(found[1], str(found[0]), kept=found[1]["progress"]["step"])
    else:
        ours = Path(wish).resolve().parent == folder.checkpoints.resolve()
        chosen = _given(Path(wish), config, ours)
    assert chosen.payload is not None
    _trained(chosen.payload, chosen.where)
    state = chosen.payload["progress"]
    now.fits(state, chosen.where)
    checkpoints.cut(chosen.kept)
    repeated = state["consumed"] >= total or state["evaluated_step"] != state["step"]
    folder.cut_metrics(state["step"], keep_evaluation=not repeated)
    return chosen


def _given(path: Path, config: Config, ours: bool) -> Origin:
    payload = checkpoint.load(path)
    refuse_model(payload["config"], config, str(path))
    kept = payload["progress"]["step"] if ours else -1
    return Origin(payload, str(path), tuple(changes(payload["config"], config)), kept)


def _trained(payload: dict[str, Any], where: str) -> None:
    """ValueError for an average of checkpoints: no optimizer has moments of those weights."""
    if "averaged" in payload:
        raise ValueError(
            f"{where}: is an average of checkpoints, from which no run goes on; give model.pretrained={where} to start "
            "a new run from its weights, or run.resume=PATH of one of its parts"
        )
