"""The front end as an accelerator wants it: a few kernels over the whole batch, whatever its rows are.

In: RawBatch. Out: Made, the fields of a FrontBatch. Equal to the row-by-row code of the CPU within rounding.

    bytes, one table of numbers a row --copy--> pcm --polyphase (rate)--> --polyphase (speed, fill, level)-->
    --reverb, noise, level--> --gain, shift, mixup, dither--> kaldi --norm--> --SpecAugment-->
"""

from dist_train.batched.chain import Batched, Made

__all__ = ["Batched", "Made"]
