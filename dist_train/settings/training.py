"""Settings of a run: data, model, objective, optimizer, evaluation, checkpoints, log."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dist_train.settings.section import Fold, Section, Split


class Run(Section):
    """Where the run lies and how long it is."""

    name: str | None = Field(None, description="folder of the run under `dir`; default: the configuration file's name")
    dir: str = Field("runs", description="folder that holds all runs")
    seed: int = Field(0, ge=0, lt=2**63, description="seed of order, augmentation, dropout and initial weights")
    epochs: int = Field(30, ge=1, description="passes over the training view")
    max_steps: int | None = Field(None, ge=1, description="end after so many optimizer steps, if that comes first")
    resume: str = Field("auto", description="auto (newest checkpoint of this run), never (start anew), or a checkpoint")
    deterministic: bool | None = Field(None, description="bit-for-bit repeatable; default: true on the CPU only")
    shared: bool = Field(
        True, description="several hosts: all see the run's folder; false: it lies on the disk of rank 0's host alone"
    )
    timeout: float = Field(600.0, gt=0, description="seconds that a collective waits for a rank before the run fails")
    threads: int | None = Field(None, ge=1, description="compute threads a process; default: cores // local ranks")


class Data(Section):
    """Which samples are trained on and scored, and how they are ordered."""

    shards: list[str] = Field(
        ["shards/demo"],
        min_length=1,
        description="folders or addresses (s3://, gs://, az://, http://) of shards, joined by class name",
    )
    eval_shards: list[str] = Field(
        [], description="folders or addresses of shards to score; never trained on, never chosen by"
    )
    eval_folds: list[Fold] = Field([], description="folds of `shards` to score; the others are trained on")
    eval_split: Split | None = Field(None, description="split of `shards` to score; only split `train` is trained on")
    valid_shards: list[str] = Field([], description="folders or addresses of shards that choose the best checkpoint")
    valid_folds: list[Fold] = Field([], description="folds of `shards` that choose the best checkpoint")
    valid_split: Split | None = Field(None, description="split of `shards` that chooses the best checkpoint")
    batch_size: int = Field(64, ge=1, description="clips a step, over all ranks (the global batch)")
    micro_batch: int = Field(32, ge=1, description="clips a group: one forward, backward and BatchNorm statistic")
    lanes: int = Field(1, ge=1, description="parallel walks through the shards; as many as groups a step spares reads")
    shuffle_window: int = Field(2**20, ge=1, description="clips shuffled together; over the view's size: all of them")
    threads: int = Field(2, ge=1, le=256, description="reader threads a process")
    ahead: int = Field(8, ge=1, description="groups read ahead of the step")
    balance: Literal["none", "class"] = Field("none", description="class: repeat clips so that classes are about equal")
    patience: float | None = Field(
        None, gt=0, description="seconds that an object store may be down; default: 120, or half of run.timeout if less"
    )
    cache_dir: str | None = Field(
        None, description="local folder for whole shards of object stores, shared by a host's jobs; $NAME is filled in"
    )
    cache_gb: float | None = Field(
        None, gt=0, description="gigabytes of shards in cache_dir; default: as the disk allows, 5 % of it stays free"
    )
    max_bad: float = Field(0.001, ge=0, le=1, description="share of unreadable clips (over 10) that stops the run")

    @model_validator(mode="after")
    def _applies(self) -> "Data":
        if self.cache_gb is not None and self.cache_dir is None:
            raise ValueError("cache_gb has no effect without cache_dir; leave it out, or name the folder")
        return self

    @property
    def cache(self) -> Path | None:
        """`cache_dir` on this host. ValueError for a variable that is not set here."""
        if self.cache_dir is None:
            return None
        path = os.path.expandvars(self.cache_dir)
        if "://" in path:
            raise ValueError(f"data.cache_dir={path}: must be a folder on this host's disk, no address")
        if "$" in path:
            raise ValueError(f"data.cache_dir={self.cache_dir}: a variable in it is not set on this host")
        return Path(path).expanduser()


Size = Annotated[int, Field(ge=1)]
Sizes = Annotated[list[Size], Field(min_length=1)]


class Model(Section):
    """The network: name, and sizes where they differ from the architecture's own."""

    name: Literal[
        "ecapa",
        "campplus",
        "eres2net",
        "eres2netv2",
        "resnet_se",
        "resnet_mini",
        "res2net",
        "tdnn",
        "xvector",
        "ecapa_wespeaker",
        "cnn6",
        "cnn10",
        "cnn14",
        "vggish",
        "resnetish18",
        "resnetish34",
        "resnetish50",
        "crnn",
        "cnn4",
        "m5",
        "linear",
    ] = Field("ecapa", description="architecture")
    channels: Size | Sizes | None = Field(
        None, description="width, or, where stages differ, a list; default: the architecture's own (ecapa 512)"
    )
    wide: Size | None = Field(None, description="ecapa_wespeaker (1536), xvector (1500): channels before the pooling")
    blocks: Sizes | None = Field(None, description="blocks of each of the four stages, e.g. [3, 4, 6, 3]")
    scale: Size | None = Field(None, description="groups of a Res2 block: ecapa 8, res2net, eres2net, eres2netv2 2")
    base_width: Size | None = Field(
        None, description="width of a group, in 64ths of the planes: res2net, eres2net 32, eres2netv2 26"
    )
    expansion: Size | None = Field(
        None, description="eres2net, eres2netv2: channels of a block's output, in planes (2)"
    )
    kernels: Sizes | None = Field(None, description="ecapa: kernels of stem, blocks and MFA; odd ([5, 3, 3, 3, 1])")
    dilations: Sizes | None = Field(None, description="ecapa: dilations of the same ([1, 2, 3, 4, 1])")
    groups: Sizes | None = Field(None, description="ecapa: groups of the same layers' convolutions (1 each)")
    squeeze: Size | None = Field(None, description="ecapa, ecapa_wespeaker: channels inside squeeze-excitation (128)")
    growth: Size | None = Field(None, description="campplus: channels that a dense layer appends (32)")
    bottleneck: Size | None = Field(None, description="campplus: channels inside a dense layer, in growths (4)")
    hidden: Size | None = Field(None, description="vggish: width of the first two linear layers (4096)")
    window: Size | None = Field(None, description="m5: frames of its last layer that are scored (all; torchaudio's 30)")
    dropout: float | None = Field(
        None, ge=0, lt=1, description="dropout before the head: cnn6, cnn10, cnn14 (0.1), resnet_mini (0.2)"
    )
    embedding: Size | None = Field(None, description="embedding size; default: the architecture's own")
    embedding_layers: Literal[1, 2] | None = Field(
        None, description="eres2net, eres2netv2: linear layers of the embedding (1)"
    )
    embedding_norm: bool | None = Field(None, description="ecapa_wespeaker: BatchNorm after the embedding (false)")
    pooling: Literal["asp", "sap", "tsp", "tap", "tstp", "tsdp", "astp"] | None = Field(
        None, description="temporal pooling, where there is a choice"
    )
    attention: Size | None = Field(None, description="pooling asp, astp: channels inside the attention (128)")
    context: bool | None = Field(None, description="pooling asp, astp: the attention sees the clip's statistics too")
    layers: list[str | dict[str, Any]] | None = Field(
        None, description="crnn: its layers, e.g. [{conv: 32}, norm, elu, {maxpool: 3}, {lstm: 64}, last]"
    )
    pretrained: str | None = Field(
        None, description="weights to start from: a run's folder, a checkpoint of it, or another system's file"
    )
    pretrained_head: Literal["drop", "keep"] = Field(
        "drop", description="the classifier of `pretrained`: a fresh one, or theirs (same classes only)"
    )
    freeze_epochs: float = Field(
        0.0, ge=0, description="epochs at the start in which only the classifier learns (`pretrained`)"
    )

    @model_validator(mode="after")
    def _applies(self) -> "Model":
        for key in ("pretrained_head", "freeze_epochs"):
            if self.pretrained is None and self.given(key):
                raise ValueError(f"{key} is for weights of model.pretrained, and there are none; leave it out")
        return self

    def sizes(self) -> dict[str, Any]:
        """What `models.build` takes: the sizes, without the name and where the weights come from."""
        return self.model_dump(exclude={"name", "pretrained", "pretrained_head", "freeze_epochs"})


class Objective(Section):
    """What is minimised: the mean over samples of one of these losses."""

    name: Literal["softmax", "focal", "bce", "am", "aam"] = Field(
        "softmax",
        description="cross-entropy; focal loss; binary cross-entropy (several labels a clip); AM-, AAM-softmax",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of the target spread over all classes (bce: moved towards 1/2)"
    )
    class_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(gt=0)]] = Field(
        "none", description="weight of a class's samples (bce: of its positives): by count, or by name; unnamed ones: 1"
    )
    gamma: float = Field(2.0, ge=0, le=10, description="focal: exponent that turns the loss from easy samples away")
    margin: float = Field(0.2, ge=0, lt=1.5, description="margin of the true class; am: of its cosine; aam: in radians")
    scale: float = Field(32.0, gt=0, le=256, description="am, aam: factor from cosines to logits")
    subcenters: int = Field(1, ge=1, le=16, description="am, aam: centres a class, of which the nearest counts")
    easy_margin: bool = Field(False, description="aam: a margin only within 90 degrees of the centre")
    margin_epochs: tuple[float, float] | None = Field(
        None,
        strict=False,
        description="am, aam: epochs between which the margin rises from 0; null: whole from the start",
    )
    margin_rise: Literal["exponential", "linear"] = Field(
        "exponential", description="how the margin rises: 1 - 1e-3 ** share of the way, or the share"
    )
    speed_classes: bool = Field(False, description="each speed factor of augment.speed makes classes of its own")

    @model_validator(mode="after")
    def _applies(self) -> "Objective":
        idle = [key for key in _IDLE[self.name] if self.given(key)]
        if idle:
            raise ValueError(f"{idle[0]} has no effect with name={self.name}; leave it out")
        if self.margin_epochs is None and self.margin_rise != "exponential":
            raise ValueError("margin_rise has no effect without margin_epochs; leave it out, or give the epochs")
        if self.margin_epochs is not None and not 0 <= self.margin_epochs[0] <= self.margin_epochs[1]:
            raise ValueError(f"margin_epochs is where the rise begins and ends, not {list(self.margin_epochs)}")
        return self


_MARGIN = ("margin", "scale", "subcenters", "margin_epochs", "margin_rise")
_IDLE = {  # name -> the keys that it does not read
    "softmax": ("gamma", "easy_margin", *_MARGIN),
    "focal": ("label_smoothing", "easy_margin", *_MARGIN),
    "bce": ("gamma", "easy_margin", "speed_classes", *_MARGIN),
    "am": ("gamma", "easy_margin"),
    "aam": ("gamma",),
}


Metric = (
    Literal["accuracy", "balanced_accuracy", "macro_f1", "loss", "ece", "cavg", "map", "micro_map", "auc", "d_prime"]
    | Annotated[str, Field(pattern=r"^map_at_[1-9][0-9]*$")]
)


class Evaluation(Section):
    """How clips are scored: every clip once, in fp32, its score independent of its batch mates."""

    ranks: Literal["all", "first"] = Field("all", description="ranks that compute; rank 0 scores in any case")
    clip: Literal["windows", "full"] = Field("windows", description="windows of the training length, or whole clips")
    hop: float | None = Field(None, gt=0, description="seconds between windows; default: as few as cover the clip")
    average: Literal["logits", "probabilities"] = Field("logits", description="what a clip's windows are averaged as")
    max_seconds: float = Field(20.0, gt=0, description="clip=full: longer clips are scored on their first part, s")
    every_epochs: int = Field(1, ge=1, description="epochs between two evaluations; the end is always evaluated")
    metric: Metric | None = Field(
        None, description="the run's score, which chooses the best checkpoint; default: accuracy, and map with bce"
    )
    k: int = Field(3, ge=1, le=100, description="guesses of a clip that count in map_at_3 (or another k)")
    batch_size: int = Field(32, ge=1, description="windows a batch")

    @model_validator(mode="after")
    def _agrees(self) -> "Evaluation":
        if self.metric is not None and self.metric.startswith("map_at_") and self.metric != f"map_at_{self.k}":
            raise ValueError(f"metric={self.metric} wants k={self.metric.removeprefix('map_at_')}, not k={self.k}")
        return self


class Checkpoint(Section):
    """When state is saved, and how many files stay."""

    every_minutes: float | None = Field(10.0, gt=0, description="minutes between two checkpoints; null: none by time")
    every_epochs: float | None = Field(1.0, gt=0, description="epochs between two checkpoints; null: none by epochs")
    keep: int = Field(2, ge=1, description="newest checkpoints that stay, beside the best")
    store: str | None = Field(
        None, description="address (s3://, gs://, az://) under which each run's folder is copied, and fetched from"
    )


class Log(Section):
    """What is written while training."""

    every: int = Field(20, ge=1, description="steps between two log lines")
    tensorboard: bool = Field(True, description="write TensorBoard files")
    profile: tuple[int, int] | None = Field(
        None,
        strict=False,
        description="first and last step of a profile, e.g. [20, 25]; the trace of rank 0 goes to RUN/trace",
    )
    examples: int = Field(4, ge=0, le=64, description="Fbank pictures and clips to listen to in TensorBoard")

    @model_validator(mode="after")
    def _in_range(self) -> "Log":
        if self.profile is not None and not 1 <= self.profile[0] <= self.profile[1]:
            raise ValueError(f"profile is the first and the last step, from 1 on, not {list(self.profile)}")
        return self
