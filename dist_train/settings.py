"""Every setting of a run: its type, range, unit, default and meaning. In: plain dicts; out: frozen, checked objects.

Nothing here reads files; `config` does. `configs/schema.json` is generated from these classes, so the one-line
descriptions below are what an editor shows beside a key.
"""

from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema, model_validator


def _fraction(value: Any) -> Any:
    """`9/10`, `1` or `0.9` as an exact fraction: a float factor has a huge resampling kernel (0.95 * 22050 = 20947)."""
    if isinstance(value, Fraction) or (isinstance(value, str) and value.strip()):
        try:
            return Fraction(value)
        except (ValueError, ZeroDivisionError):
            return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Fraction(str(value))
    return value


Factor = Annotated[
    Fraction,
    BeforeValidator(_fraction),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": ["string", "number"], "examples": ["9/10", 1, "11/10"]}),
]
Fold = Annotated[int, Field(ge=0, le=32767)]
Split = Literal["train", "valid", "test"]


class Section(BaseModel):
    """One section of the configuration: unknown keys and silent conversions are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)


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


class Audio(Section):
    """What a clip becomes before features: rate, channels, length, level."""

    sample_rate: int = Field(16000, ge=1000, le=384000, description="rate of all waveforms on the device, Hz")
    channels: Literal["mono", "first"] | Annotated[int, Field(ge=1, le=8)] = Field(
        "mono", description="mono (mean of channels), first, or a number of channels to keep"
    )
    seconds: float = Field(3.0, gt=0, le=600, description="training window, s")
    min_seconds: float = Field(0.1, ge=0, description="shorter clips are left out of training, s")
    short: Literal["tile", "pad", "random_pad"] = Field("tile", description="clips under the window: repeat or pad")
    crop: Literal["random", "active"] = Field("random", description="where the window falls; active: where sound is")
    target_db: float | None = Field(None, ge=-100, le=0, description="each clip's level is brought to this RMS, dBFS")


class Mixup(Section):
    """Sum of two waveforms of a group, and of their targets (Zhang 2018, arXiv 1710.09412)."""

    probability: float = Field(0.0, ge=0, le=1, description="share of windows that are mixed")
    alpha: float = Field(1.0, gt=0, description="the weight is drawn from Beta(alpha, alpha)")


class SpecAugment(Section):
    """Masked bands of bins and frames (Park 2019, arXiv 1904.08779)."""

    probability: float = Field(1.0, ge=0, le=1, description="share of windows that are masked")
    freq_masks: int = Field(2, ge=0, le=16, description="frequency masks a window")
    freq_width: int = Field(8, ge=0, description="widest frequency mask, bins")
    time_masks: int = Field(2, ge=0, le=16, description="time masks a window")
    time_width: float = Field(0.1, ge=0, le=1, description="widest time mask, share of the window's frames")
    fill: Literal["zero", "mean"] = Field("zero", description="what masked values become")


class Augment(Section):
    """Random changes of training windows; each draw is a function of (seed, position)."""

    speed: list[Factor] = Field(
        [Fraction(9, 10), Fraction(1), Fraction(11, 10)], min_length=1, description="speed factors, equally likely"
    )
    gain_db: tuple[float, float] | None = Field(None, strict=False, description="uniform gain between two levels, dB")
    shift: float = Field(0.0, ge=0, le=1, description="largest circular shift, share of the window, either way")
    mixup: Mixup = Field(Mixup(), description="sum of two clips of a group")  # type: ignore[call-arg]
    spec: SpecAugment | None = Field(None, description="SpecAugment masks; null: none")

    @model_validator(mode="after")
    def _in_range(self) -> "Augment":
        for factor in self.speed:
            if not Fraction(1, 4) <= factor <= 4:
                raise ValueError(f"a speed factor must lie between 1/4 and 4, not {factor}")
        if self.gain_db is not None and self.gain_db[0] > self.gain_db[1]:
            raise ValueError(f"the lower gain comes first: [{self.gain_db[1]}, {self.gain_db[0]}]")
        return self


class Features(Section):
    """Waveform to frames x bins, and their normalisation."""

    name: Literal["fbank", "mfcc"] = Field("fbank", description="Kaldi Fbank or Kaldi MFCC")
    preset: Literal["kaldi", "macls", "3dspeaker", "wespeaker"] | None = Field(
        None, description="a whole front end as that system has it; the keys it fixes may not be given beside it"
    )
    bins: int = Field(80, ge=4, le=512, description="mel bins")
    ceps: int = Field(13, ge=1, le=512, description="cepstral coefficients (mfcc)")
    norm: Literal["cmn", "cmvn", "dataset", "clip", "batch", "none"] = Field(
        "cmn", description="mean (and deviation) removed: of the utterance, of the training view, of the clip, ..."
    )
    window: Literal["povey", "hamming", "hanning", "rectangular", "blackman"] = Field("povey", description="window")
    frame_length: float = Field(25.0, gt=0, description="frame length, ms")
    frame_shift: float = Field(10.0, gt=0, description="frame shift, ms")
    low_freq: float = Field(20.0, ge=0, description="lowest frequency of the mel bank, Hz")
    high_freq: float = Field(0.0, description="highest frequency, Hz; 0 or less: counted from the Nyquist frequency")
    preemphasis: float = Field(0.97, ge=0, le=1, description="pre-emphasis coefficient")
    waveform_scale: float = Field(1.0, gt=0, description="factor on the waveform (32768 for int16-scaled front ends)")
    dither: float = Field(0.0, ge=0, description="Gaussian noise on each frame, in units of the scaled waveform")


class Model(Section):
    """The network: name, and sizes where they differ from the architecture's own."""

    name: Literal["ecapa", "campplus", "eres2net"] = Field("ecapa", description="architecture")
    channels: int | None = Field(None, ge=8, description="width; default: the architecture's own (ecapa 512)")
    embedding: int | None = Field(None, ge=1, description="embedding size; default: the architecture's own")
    pooling: Literal["asp", "sap", "tsp", "tap"] | None = Field(None, description="temporal pooling (ecapa)")


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
    examples: int = Field(4, ge=0, le=64, description="Fbank pictures and clips to listen to in TensorBoard")


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
    compile: bool = Field(False, description="compile the network with torch.compile")
    evaluation: Evaluation = Field(Evaluation(), description="scoring")  # type: ignore[call-arg]
    checkpoint: Checkpoint = Field(Checkpoint(), description="saving")  # type: ignore[call-arg]
    log: Log = Field(Log(), description="console, metrics, TensorBoard")  # type: ignore[call-arg]
