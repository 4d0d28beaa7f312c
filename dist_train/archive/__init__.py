"""Tars and their index: what lies where in a shard, whether it is whole, and what is known of each sample."""
