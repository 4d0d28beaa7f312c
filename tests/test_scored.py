"""scores.npz: written and read back equal; what is none is refused; folds are pooled."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dist_train import scored
from dist_train.scored import Scored

if TYPE_CHECKING:
    from launches import Run


def scores(first: int, clips: int, several: bool = False, seed: int = 0) -> Scored:
    """Random scores of clips `first`, `first + 1`, ... of three classes."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, (clips, 3)) if several else random.integers(0, 3, clips)
    probability_NC = random.dirichlet(np.ones(3), clips)
    keys = np.array([f"clip-{first + number:04d}" for number in range(clips)])
    return Scored(keys, ("犬", "cat", "no"), truth, probability_NC, random.random(clips) < 0.1)


@pytest.mark.parametrize("several", [False, True])
def test_written_scores_are_read_back(tmp_path: Path, several: bool) -> None:
    written = scores(0, 20, several)
    scored.write(tmp_path / "scores.npz", written)
    found = scored.read(tmp_path)
    assert found.classes == written.classes and found.several == several
    for name in ("keys", "truth", "probability_NC", "bad"):
        np.testing.assert_array_equal(getattr(found, name), getattr(written, name))


def test_what_is_no_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no scores there"):
        scored.read(tmp_path)
    for content in (b"", b"PK\x03\x04 cut", b"text"):
        (tmp_path / "scores.npz").write_bytes(content)
        with pytest.raises(ValueError, match="not the scores of a run"):
            scored.read(tmp_path)
    np.savez(tmp_path / "scores.npz", keys=np.array(["a"]))
    with pytest.raises(ValueError, match="not the scores of a run"):
        scored.read(tmp_path)


def test_folds_are_pooled() -> None:
    parts = [scores(0, 5), scores(5, 7, seed=1)]
    pooled = scored.pool(parts)
    assert pooled.keys.tolist() == [f"clip-{number:04d}" for number in range(12)]
    np.testing.assert_array_equal(pooled.probability_NC, np.concatenate([part.probability_NC for part in parts]))
    with pytest.raises(ValueError, match="clip-0004 is scored in two parts"):
        scored.pool([scores(0, 5), scores(4, 2)])
    with pytest.raises(ValueError, match="cannot be pooled"):
        scored.pool([scores(0, 5), scores(5, 2, several=True)])


def test_a_finished_run_has_scores(finished: "Run") -> None:
    found, result = scored.read(finished.folder), finished.result()
    assert list(found.classes) == result["classes"] and len(found.keys) == result["clips"]
    assert float((found.probability_NC.argmax(1) == found.truth).mean()) == result["accuracy"]
