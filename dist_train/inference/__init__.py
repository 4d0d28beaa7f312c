"""A trained run and sounds -> labels, a timeline of a long recording, embeddings: what training was for.

sound       a file, its bytes, an address, an array or raw PCM -> blocks of int16, exactly as packing makes them
clips       sounds in memory -> batches of windows, as evaluation plans them
model       a run's folder -> Model: predict, stream, timeline, embed, probabilities
"""

from dist_train.inference.model import Model, load
from dist_train.inference.prediction import Prediction
from dist_train.inference.sound import Pcm

__all__ = ["Model", "Pcm", "Prediction", "load"]
