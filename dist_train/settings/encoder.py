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
        description="true: not trained; false: trained with the model; convolutions: those on the waveform are not",
    )
    layer: Literal["last", "weighted"] | Annotated[int, Field(ge=0)] = Field(
        "weighted", description="hidden states that the model gets: last, a layer's number, or a learned sum of all"
    )
    seconds: float | None = Field(
        None,
        gt=0,
        description="Whisper, AST: what is heard of a clip instead of 30 s and 10.24 s; positions are cut, s",
    )
