"""The end of a run. In: its last scores; out: result.json, scores.npz, and the scores of the best checkpoint."""

from collections.abc import Callable, Mapping
from typing import Any

from dist_train.parts import Parts
from dist_train.result import arrays, summary
from dist_train.runs import RunFolder
from dist_train.scores import Scores


def best(
    parts: Parts, found: Mapping[str, Scores], read: Callable[[], bytes], stop: Callable[[], bool]
) -> dict[str, Any] | None:
    """Scores on the evaluation set of the checkpoint that the validation set chose, which `read` gives; on all ranks.

    None without a validation set. `found`: the final model's scores, by set.
    """
    progress = parts.progress
    if parts.views.valid is None or progress.best_step is None:
        return None
    record: dict[str, Any] = {"step": progress.best_step, "valid": progress.best_value}
    if parts.views.evaluation is None:
        return record
    scores = found.get("eval")
    if progress.best_step != progress.step:
        scores = parts.score_saved(read, stop)
    return record | (scores.values if scores is not None else {})


def write(parts: Parts, folder: RunFolder, found: Mapping[str, Scores], best: dict[str, Any] | None) -> Scores | None:
    """result.json and scores.npz; the scores that count."""
    kind = "eval" if "eval" in found else "valid"
    scores, view = found.get(kind), parts.views.evaluation or parts.views.valid
    if scores is not None and view is not None:
        folder.write_scores(arrays(scores, view, parts.views.train.classes))
    result = summary(parts, kind, scores) | {"bad_samples": len(parts.progress.bad)}
    result |= {"valid": found["valid"].values} if "valid" in found else {}
    result |= {"best": best} if best else {}
    folder.write_result(result)
    return scores
