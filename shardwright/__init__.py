"""Curated training shards from raw code and image collections, every record accounted for."""

__version__ = "0.1.0"
