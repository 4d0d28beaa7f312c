"""What all sections of the configuration are made of: strict, frozen, and a few types of their own."""

from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema


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

    def given(self, key: str) -> bool:
        """Whether a key has another value than its default: what would then do nothing is refused."""
        default = type(self).model_fields[key].get_default(call_default_factory=True)
        return bool(getattr(self, key) != default)
