"""Settings of the optimizer and of the learning rate."""

import difflib
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from dist_train.settings.section import Section

OPTIMIZERS = (
    *("adamw", "adam", "sgd", "adadelta", "adafactor", "adagrad"),
    *("adamax", "asgd", "nadam", "radam", "rmsprop", "rprop"),
)
REFUSED = {
    "lbfgs": "lbfgs evaluates the network several times a step, and a step here is one backward of each group",
    "sparseadam": "sparseadam takes sparse gradients only, and no network here has them",
    "muon": "muon takes matrices only, and these networks are convolutions for the most part",
}
BETAS = ("adamw", "adam", "adamax", "nadam", "radam")


def _optimizer(value: Any) -> Any:
    """A known name in small letters. ValueError naming the nearest one, or the reason of a refusal."""
    if not isinstance(value, str):
        return value
    name = value.lower()
    if name in REFUSED:
        raise ValueError(f"{REFUSED[name]}; take one of {', '.join(OPTIMIZERS)}")
    if name not in OPTIMIZERS:
        near = difflib.get_close_matches(name, OPTIMIZERS, 1, 0.5)
        hint = f"did you mean `{near[0]}`? " if near else ""
        raise ValueError(f"{hint}choose one of {', '.join(OPTIMIZERS)}")
    return name


class Optim(Section):
    """Optimizer and learning rate, a function of consumed / total (and of the validation score: plateau)."""

    name: Annotated[
        Literal[
            "adamw",
            "adam",
            "sgd",
            "adadelta",
            "adafactor",
            "adagrad",
            "adamax",
            "asgd",
            "nadam",
            "radam",
            "rmsprop",
            "rprop",
        ],
        BeforeValidator(_optimizer),
    ] = Field("adamw", description="optimizer, of torch.optim")
    arguments: dict[str, Any] = Field({}, description="further arguments of the optimizer, e.g. {eps: 1e-6}")
    lr: float = Field(1e-3, gt=0, description="highest learning rate")
    min_lr: float = Field(1e-5, ge=0, description="learning rate at the end; at the start of warm-up too by default")
    start_lr: float | None = Field(
        None, ge=0, description="learning rate at the start of warm-up or of onecycle; default: min_lr"
    )
    schedule: Literal["cosine", "onecycle", "step", "exponential", "plateau", "constant"] = Field(
        "cosine", description="after the warm-up"
    )
    warmup_epochs: float = Field(1.0, ge=0, description="linear warm-up, epochs")
    step_epochs: float = Field(20.0, gt=0, description="schedule step: epochs between two reductions")
    step_factor: float = Field(0.1, gt=0, lt=1, description="schedule step, plateau: factor of each reduction")
    patience: int = Field(
        3, ge=1, description="schedule plateau: evaluations in a row without a new best validation score, then a step"
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="factor of the rate from each stage to the one before it; the head has the full rate",
    )
    head_lr_factor: float = Field(1.0, gt=0, description="factor of the head's rate")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay; none on norms and biases")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum (sgd)")
    betas: tuple[float, float] = Field(
        (0.9, 0.999), strict=False, description="decay of the moments (adamw, adam, adamax, nadam, radam)"
    )
    clip: float | None = Field(5.0, gt=0, description="largest gradient norm; null: no clipping")
    ema: float | None = Field(None, gt=0, lt=1, description="decay a step of the weights' moving average; null: none")
    max_skipped: int = Field(20, ge=1, description="steps in a row with non-finite gradient that end the run")

    @model_validator(mode="after")
    def _applies(self) -> "Optim":
        for key, used, where in (
            ("momentum", self.name == "sgd", f"name={self.name}; give optim.arguments if it has one"),
            ("betas", self.name in BETAS, f"name={self.name}; give optim.arguments if it has such"),
            ("weight_decay", self.name != "rprop", "name=rprop, which goes by signs only"),
            ("step_epochs", self.schedule == "step", f"schedule={self.schedule}"),
            ("step_factor", self.schedule in ("step", "plateau"), f"schedule={self.schedule}"),
            ("patience", self.schedule == "plateau", f"schedule={self.schedule}"),
            ("start_lr", self.warmup_epochs > 0 or self.schedule == "onecycle", "warmup_epochs=0"),
        ):
            if not used and self.given(key):
                raise ValueError(f"{key} has no effect with {where}; leave it out")
        if self.start_lr is not None and self.start_lr > self.lr:
            raise ValueError(f"start_lr ({self.start_lr}) is above lr ({self.lr})")
        if self.schedule == "exponential" and self.min_lr == 0:
            raise ValueError("schedule=exponential never reaches min_lr=0; give what it shall end at")
        if self.name == "rprop" and (self.schedule != "constant" or self.warmup_epochs > 0):
            raise ValueError("name=rprop finds its own step sizes, from lr on; set schedule=constant, warmup_epochs=0")
        return self
