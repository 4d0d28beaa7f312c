"""The index's format: one fixed-size row a sample, 64 bytes, so that a row is one cache line.

index.json      version, shards, classes, totals, fingerprint, side files   (written last: without it, no index)
index.npy       ROW of every sample, in the order of the shards' names and of the samples in them
activity.npy    (samples, 16) uint8: level of sixteen equal parts of each clip, 255 = the loudest of the clip
keys.npy        (samples + 1) uint64 ends of each key in keys.bin
keys.bin        the keys, UTF-8, laid end to end
labels.npy      (samples + 1) uint64 ends of each sample's labels in label_ids.npy (only where a clip has several)
label_ids.npy   int32 class numbers, laid end to end
"""

from enum import IntEnum

import numpy as np

VERSION = 1
INDEX, ROWS, ACTIVITY = "index.json", "index.npy", "activity.npy"
KEY_ENDS, KEYS, LABEL_ENDS, LABEL_IDS = "keys.npy", "keys.bin", "labels.npy", "label_ids.npy"
CLASSES, SKIP, FEATURES = "classes.txt", "skip.txt", "features.json"
SEGMENTS = 16

ROW = np.dtype(
    [
        ("offset", "<u8"),  # of the audio data in its tar, past the WAV header; of the whole member for FILE and AV
        ("size", "<u8"),  # bytes of the audio data
        ("group", "<u8"),  # first 8 bytes of sha256 of the group's name, little-endian; 0: none
        ("digest", "<u8"),  # first 8 bytes of sha256 of the audio data, little-endian
        ("shard", "<u4"),  # number of the tar, by sorted name
        ("frames", "<u4"),  # samples a channel, at `rate`; packed features: frames
        ("rate", "<u4"),  # Hz; packed features: frames a second, rounded
        ("rms", "<f4"),  # of the mean of the channels; full scale is 1
        ("label", "<i4"),  # class number; of several labels the first
        ("fold", "<i2"),  # -1: none
        ("split", "u1"),  # SPLITS
        ("codec", "u1"),  # CODECS
        ("channels", "<u2"),  # of packed features the bins
        ("reserved", "u1", (6,)),
    ]
)
OLD_ROW = np.dtype(
    [*((name, ROW[name]) for name in (ROW.names or ())[:-2]), ("channels", "u1"), ("reserved", "u1", (7,))]
)
"""ROW as it was before features could be packed: the same bytes mean the same."""

SPLITS = {"none": 0, "train": 1, "valid": 2, "test": 3}


class CODECS(IntEnum):
    """How a sample's audio bytes are coded; below FILE they are PCM frames, channels interleaved, little-endian."""

    U8 = 1
    S16 = 2
    S24 = 3
    S32 = 4
    F32 = 5
    F64 = 6
    MULAW = 7
    ALAW = 8
    F16 = 9  # packed features only
    FILE = 16  # a whole file that soundfile decodes
    AV = 17  # a whole file that PyAV decodes


BYTES = {
    CODECS.U8: 1,
    CODECS.S16: 2,
    CODECS.S24: 3,
    CODECS.S32: 4,
    CODECS.F32: 4,
    CODECS.F64: 8,
    CODECS.MULAW: 1,
    CODECS.ALAW: 1,
    CODECS.F16: 2,
}
"""Bytes of one sample of one channel, by PCM codec."""
