"""A view's shards -> their bytes: from local files, by ranges from a store, or from a cache that reads ahead."""
