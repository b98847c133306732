"""Settings that every test shares."""

import os

from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # tests share the cores
settings.register_profile("shardwright", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("shardwright")
