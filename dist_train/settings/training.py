"""Settings of a run: data, model, objective, optimizer, evaluation, checkpoints, log."""

from typing import Any, Literal

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
    timeout: float = Field(600.0, gt=0, description="seconds that a collective waits for a rank before the run fails")
    threads: int | None = Field(None, ge=1, description="compute threads a process; default: cores // local ranks")


class Data(Section):
    """Which samples are trained on and scored, and how they are ordered."""

    shards: list[str] = Field(["shards/demo"], min_length=1, description="folders of tar shards, joined by class name")
    eval_shards: list[str] = Field([], description="folders of shards to score; never trained on, never chosen by")
    eval_folds: list[Fold] = Field([], description="folds of `shards` to score; the others are trained on")
    eval_split: Split | None = Field(None, description="split of `shards` to score; only split `train` is trained on")
    valid_shards: list[str] = Field([], description="folders of shards that choose the best checkpoint")
    valid_folds: list[Fold] = Field([], description="folds of `shards` that choose the best checkpoint")
    valid_split: Split | None = Field(None, description="split of `shards` that chooses the best checkpoint")
    batch_size: int = Field(64, ge=1, description="clips a step, over all ranks (the global batch)")
    micro_batch: int = Field(32, ge=1, description="clips a group: one forward, backward and BatchNorm statistic")
    lanes: int = Field(1, ge=1, description="parallel walks through the shards; as many as groups a step spares reads")
    shuffle_window: int = Field(2**20, ge=1, description="clips shuffled together; over the view's size: all of them")
    threads: int = Field(2, ge=1, le=256, description="reader threads a process")
    ahead: int = Field(8, ge=1, description="groups read ahead of the step")
    balance: Literal["none", "class"] = Field("none", description="class: repeat clips so that classes are about equal")
    max_bad: float = Field(0.001, ge=0, le=1, description="share of unreadable clips (over 10) that stops the run")


class Model(Section):
    """The network: name, and sizes where they differ from the architecture's own."""

    name: Literal[
        "ecapa",
        "campplus",
        "eres2net",
        "eres2netv2",
        "resnet_se",
        "res2net",
        "tdnn",
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
    channels: int | None = Field(None, ge=8, description="width; default: the architecture's own (ecapa 512)")
    embedding: int | None = Field(None, ge=1, description="embedding size; default: the architecture's own")
    pooling: Literal["asp", "sap", "tsp", "tap"] | None = Field(
        None, description="temporal pooling, where there is a choice"
    )
    layers: list[str | dict[str, Any]] | None = Field(
        None, description="crnn: its layers, e.g. [{conv: 32}, norm, elu, {maxpool: 3}, {lstm: 64}, last]"
    )


class Objective(Section):
    """What is minimised."""

    name: Literal["softmax"] = Field("softmax", description="cross-entropy over classes")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")


class Optim(Section):
    """Optimizer and learning rate, a function of consumed / total."""

    name: Literal["adamw", "adam", "sgd"] = Field("adamw", description="optimizer")
    lr: float = Field(1e-3, gt=0, description="highest learning rate")
    min_lr: float = Field(1e-5, ge=0, description="learning rate at the start of warm-up and at the end")
    schedule: Literal["cosine", "onecycle", "step", "constant"] = Field("cosine", description="after the warm-up")
    warmup_epochs: float = Field(1.0, ge=0, description="linear warm-up, epochs")
    step_epochs: float = Field(20.0, gt=0, description="schedule step: epochs between two reductions")
    step_factor: float = Field(0.1, gt=0, lt=1, description="schedule step: factor of each reduction")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay; none on norms and biases")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum (sgd)")
    betas: tuple[float, float] = Field((0.9, 0.999), strict=False, description="decay of the moments (adam, adamw)")
    clip: float | None = Field(5.0, gt=0, description="largest gradient norm; null: no clipping")
    ema: float | None = Field(None, gt=0, lt=1, description="decay a step of the weights' moving average; null: none")
    max_skipped: int = Field(20, ge=1, description="steps in a row with non-finite gradient that end the run")


class Evaluation(Section):
    """How clips are scored: every clip once, in fp32, its score independent of its batch mates."""

    ranks: Literal["all", "first"] = Field("all", description="ranks that compute; rank 0 scores in any case")
    clip: Literal["windows", "full"] = Field("windows", description="windows of the training length, or whole clips")
    hop: float | None = Field(None, gt=0, description="seconds between windows; default: as few as cover the clip")
    average: Literal["logits", "probabilities"] = Field("logits", description="what a clip's windows are averaged as")
    max_seconds: float = Field(20.0, gt=0, description="clip=full: longer clips are scored on their first part, s")
    every_epochs: int = Field(1, ge=1, description="epochs between two evaluations; the end is always evaluated")
    metric: Literal["accuracy", "balanced_accuracy", "macro_f1"] = Field("accuracy", description="the run's score")
    batch_size: int = Field(32, ge=1, description="windows a batch")


class Checkpoint(Section):
    """When state is saved, and how many files stay."""

    every_minutes: float | None = Field(10.0, gt=0, description="minutes between two checkpoints; null: none by time")
    every_epochs: float | None = Field(1.0, gt=0, description="epochs between two checkpoints; null: none by epochs")
    keep: int = Field(2, ge=1, description="newest checkpoints that stay, beside the best")


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
