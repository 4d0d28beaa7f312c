"""Train audio classifiers on tar shards, and use them: `from dist_train import load`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dist_train.inference import Model, Pcm, Prediction, load

__all__ = ["Model", "Pcm", "Prediction", "load"]


def __getattr__(name: str) -> Any:
    """What uses a trained run; torch is imported when it is first asked for, so that `import dist_train` is cheap."""
    if name in __all__:
        from dist_train import inference

        return getattr(inference, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
