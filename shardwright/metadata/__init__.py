"""Schemas, manifests, lineage and the catalog: what is known about a curation."""
