"""Every setting of a run: its type, range, unit, default and meaning. In: plain dicts; out: frozen, checked objects.

Nothing here reads files; `config` does. `configs/schema.json` is generated from these classes, so the one-line
descriptions are what an editor shows beside a key.
"""

from typing import Literal

from pydantic import Field, model_validator

from dist_train.settings.changes import Codec, Cut, CutMix, Pass, Stretch, White
from dist_train.settings.encoder import Encoder
from dist_train.settings.features import Features
from dist_train.settings.optim import Optim
from dist_train.settings.section import Section
from dist_train.settings.sound import Audio, Augment, Mixup, Noise, Reverb, SpecAugment
from dist_train.settings.training import Checkpoint, Data, Evaluation, Log, Model, Objective, Run

__all__ = [
    "Audio",
    "Augment",
    "Checkpoint",
    "Codec",
    "Config",
    "Cut",
    "CutMix",
    "Data",
    "Encoder",
    "Evaluation",
    "Features",
    "Log",
    "Mixup",
    "Model",
    "Noise",
    "Objective",
    "Optim",
    "Pass",
    "Reverb",
    "Run",
    "Section",
    "SpecAugment",
    "Stretch",
    "White",
]


class Config(Section):
    """The whole configuration."""

    run: Run = Field(Run(), description="the run: name, folder, seed, length")  # type: ignore[call-arg]
    data: Data = Field(Data(), description="shards, folds, batches, order")  # type: ignore[call-arg]
    audio: Audio = Field(Audio(), description="rate, channels, window")  # type: ignore[call-arg]
    augment: Augment = Field(Augment(), description="random changes of training windows")  # type: ignore[call-arg]
    features: Features = Field(Features(), description="front end")  # type: ignore[call-arg]
    model: Model = Field(Model(), description="network")  # type: ignore[call-arg]
    objective: Objective = Field(Objective(), description="loss")  # type: ignore[call-arg]
    optim: Optim = Field(Optim(), description="optimizer and schedule")  # type: ignore[call-arg]
    precision: Literal["auto", "fp32", "bf16", "fp16", "fp64"] = Field(
        "auto", description="auto: the launcher's choice, else bf16 where the GPU has it, else fp32; fp64 to compare"
    )
    compile: bool = Field(False, description="compile the network, block by block, and on a GPU the front end")
    graphs: bool = Field(
        False, description="compiled blocks as CUDA graphs (CUDA only): for networks of many small kernels"
    )
    evaluation: Evaluation = Field(Evaluation(), description="scoring")  # type: ignore[call-arg]
    checkpoint: Checkpoint = Field(Checkpoint(), description="saving")  # type: ignore[call-arg]
    log: Log = Field(Log(), description="console, metrics, TensorBoard")  # type: ignore[call-arg]

    @property
    def patience(self) -> float:
        """Seconds that a store of shards may be down. Twice that ends before the other ranks stop waiting."""
        return self.data.patience if self.data.patience is not None else min(120.0, self.run.timeout / 2)

    @model_validator(mode="after")
    def _patient(self) -> "Config":
        if 2 * self.patience > self.run.timeout:
            text = f"data.patience={self.patience:g} is over half of run.timeout={self.run.timeout:g}"
            raise ValueError(f"{text}: the other ranks would stop waiting first; lower it, or raise run.timeout")
        return self
