"""The hand-off to training: shard files, and which sample stands where in them."""
