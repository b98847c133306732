"""System-induced heterogeneity: which device made an image, and what that does to the data."""
