"""What came over the network since the last log line, of all ranks together."""

import torch

from dist_train.storage import Source
from dist_train.world import World


class Traffic:
    """Of one source a rank, called alike on all ranks; of local shards there is nothing to tell."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._before = source.traffic() or (0, 0, 0)

    def figures(self, world: World) -> dict[str, int]:
        """`fetched_bytes`, `store_requests`, and `store_retries`, requests that were sent again."""
        now = self.source.traffic()
        if now is None:
            return {}
        since = torch.tensor([new - old for new, old in zip(now, self._before, strict=True)], dtype=torch.int64)
        self._before = now
        fetched, requests, repeated = world.add(since).tolist()
        return {"fetched_bytes": fetched, "store_requests": requests, "store_retries": repeated}
