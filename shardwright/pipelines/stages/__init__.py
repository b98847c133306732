"""The stages of a curation, each a function of committed tables that commits tables."""
