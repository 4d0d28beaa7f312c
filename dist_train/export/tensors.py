"""A run's network -> its weights as safetensors, with the facts in the header: names and numbers, nothing that runs.

`model.pretrained=FILE` starts another run from it; other frameworks read it by its names. The front end is no part of
it but for the statistics of features.norm=dataset, which lie in the facts.
"""

import json

from dist_train.saved import Saved


def written(saved: Saved, facts: dict[str, str]) -> bytes:
    """The .safetensors: averaged weights where the run has them. ValueError where safetensors is not installed."""
    try:
        from safetensors.torch import save
    except ImportError:
        raise ValueError("--to safetensors needs safetensors: pip install 'dist-train[export]'") from None
    statistics = saved.front.statistics
    more = {} if statistics is None else {"statistics": json.dumps(statistics.tolist())}
    # A tensor that two names share is written twice: safetensors refuses shared memory.
    state = {name: value.detach().cpu().contiguous().clone() for name, value in saved.model.state_dict().items()}
    return save(state, metadata=facts | more)
