"""Every recipe trains: one step on clips that imitate none of its data, at full size, through its own command line."""

import re
from pathlib import Path

import encoders
import pytest
from launches import Job

from dist_train.sources import layouts

LONG = ("esc10", "esc50", "speechcommands", "urbansound8k")  # what they are made of, others have too
RECIPES = sorted(path.stem for path in (Path(__file__).parents[1] / "configs").glob("*.yaml"))
ENCODERS = {"wav2vec2": "wav2vec2"}  # recipe -> family of the encoder that it takes from a hub
TINY = (
    *("data.eval_folds=[]", "data.eval_split=null", "data.valid_split=null", "data.balance=none"),
    *("data.batch_size=2", "data.micro_batch=2", "data.threads=1", "run.max_steps=1", "run.threads=1", "run.name=tiny"),
    *("audio.min_seconds=0.1", "log.every=1", "log.tensorboard=false", "checkpoint.every_epochs=1000"),
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.full) if name in LONG else name for name in RECIPES]
)
def test_a_recipe_makes_a_step(name: str, root: Path, shards: Path, tmp_path: Path) -> None:
    command = [str(root / "configs" / f"{name}.yaml"), f"data.shards=[{shards}]", f"run.dir={tmp_path}", *TINY]
    if name in ENCODERS:  # of a hub: a small one of its kind takes its place
        command.append(f"features.hf.name={encoders.save(tmp_path / 'encoder', ENCODERS[name])}")
    job = Job(command, tmp_path)
    assert job.wait() == [0], job.text()
    (record,) = job.run.metrics()
    assert 0 < record["loss"] < 50 and record["grad_norm"] > 0 and record["bad_samples"] == 0


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_how_it_is_packed_and_trained(name: str, root: Path) -> None:
    text = (root / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
    folder = re.search(r"shards: \[(\S+)\]", text)
    assert folder is not None and f"configs/{name}.yaml" in text
    if not folder[1].startswith("shards/demo"):
        assert re.search(rf"# +python tools/make_shards\.py pack \S+ {folder[1]}\b", text)
        assert re.search(rf"# +python tools/make_shards\.py check {folder[1]}\b", text)


def test_layouts_have_recipes() -> None:
    given = {"list", "csv", "folder", "kaldi"}
    names = {"esc": "esc50"}
    assert {names.get(layout, layout) for layout in layouts.LAYOUTS if layout not in given} <= set(RECIPES)
