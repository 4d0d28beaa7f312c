"""How shards are made: samples -> coded members -> tars at a desk, by processes, in parts, to disk or store."""
