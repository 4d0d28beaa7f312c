"""A trained run and sounds -> labels, a timeline of a long recording, embeddings: what training was for.

sound       a file, its bytes, an address, an array or raw PCM -> blocks of int16, exactly as packing makes them
ahead       sounds -> clips in memory, by threads
clips       clips -> batches of windows, as evaluation plans them; `scorer` computes
timeline    windows -> probabilities in time -> `segments`
model       a run's folder, or a file of weights (`exported`) -> Model: predict, stream, timeline, embed, probabilities
inputs, output   what tools/predict.py reads and writes
"""

from dist_train.inference.model import Model, load
from dist_train.inference.prediction import Prediction
from dist_train.inference.sound import Named, Pcm
from dist_train.inference.timeline import Segment, Timeline

__all__ = ["Model", "Named", "Pcm", "Prediction", "Segment", "Timeline", "load"]
