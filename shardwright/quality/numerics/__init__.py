"""Numeric deviation: the same records embedded in other ways, and what decisions that turns."""
