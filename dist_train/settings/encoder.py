"""Settings of a pretrained encoder (features.name=hf)."""

from typing import Annotated, Literal

from pydantic import Field

from dist_train.settings.section import Section


class Encoder(Section):
    """A self-supervised or supervised encoder of audio, by transformers; the model is trained on its hidden states."""

    name: str = Field(min_length=1, description="folder of an encoder, or its name on the hub")
    revision: str | None = Field(None, min_length=1, description="branch, tag or commit on the hub; null: main")
    frozen: bool | Literal["convolutions"] = Field(
        True,
        description="not trained at all (true), trained with the model (false), or only convolutions are not",
    )
    layer: Literal["last", "weighted"] | Annotated[int, Field(ge=0)] = Field(
        "weighted", description="hidden states that the model gets: last, a layer's number, or a learned sum of all"
    )
    frames: Literal["time", "class"] = Field(
        "time", description="what the model gets: frames in time; or, of AST, its class tokens as the only frame"
    )
    seconds: float | None = Field(
        None,
        gt=0,
        description="Whisper, AST: length that is heard, s; null: all they were made for (30 and 10.24 s)",
    )
