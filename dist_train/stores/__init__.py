"""Where shards lie: a folder or an address of an object store; what is written there, and its index."""
