"""Encoders for text and images, k-means over their vectors, and FAISS indexes."""

from shardwright.embeddings.encoder import Encoder, load_encoder
from shardwright.embeddings.index import FlatIndexWriter
from shardwright.embeddings.kmeans import sample_keys, spherical_kmeans

__all__ = ["Encoder", "FlatIndexWriter", "load_encoder", "sample_keys", "spherical_kmeans"]
