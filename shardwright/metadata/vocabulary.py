"""What tables, views and columns mean, in the words that the catalog and the Croissant use.

And the words of Croissant itself, as others write them.
"""

PREFIXES = (
    *("cr:", "sc:", "schema:", "dct:", "http://mlcommons.org/croissant/", "https://schema.org/"),
    *("http://schema.org/", "http://purl.org/dc/terms/"),
)


def bare(term: str) -> str:
    """A term of Croissant, schema.org or Dublin Core without its prefix; others as they are."""
    found = next((prefix for prefix in PREFIXES if term.startswith(prefix)), "")
    return term.removeprefix(found)


TABLES = {
    "records": "One row per accepted input, with its content.",
    "rejects": "One row per refused input, with the reason.",
    "lookup": "Where each record stands: place of its part in records, and row. Sorted by id.",
    "filter_scores": "One row per record with what each quality filter measured.",
    "signatures": "What tells duplicates of each record without its content: hashes and sketches.",
    "near_links": "Records that near duplicates link, by any chain, to one that comes before.",
    "duplicate_semantics": "How many records each meaning of a group of duplicates would remove.",
    "duplicates": "One row per record in a group of two or more equal or similar records.",
    "embeddings": "One vector per live record.",
    "contamination": "One row per hit of a record against an item of a benchmark.",
    "semantic_duplicates": "One row per record in a group of records that mean the same.",
    "semantic_centroids": "One unit vector per cluster in which semantic duplicates are sought.",
    "semantic_summary": "How many records each meaning of semantic duplicates would remove.",
    "centroids": "One unit vector per cluster.",
    "clusters": "The nearest centroid of each live record, and how far it is.",
    "corrupted": "One row per copy that was damaged on purpose: where it lies, and lay before.",
    "corruption_study": "One row per kind of damage: how it moves records among the clusters.",
    "detectors": "Models that were fitted and calibrated by the study, as NumPy archives.",
    "views": "One row per live record: what each view measured, and what the detectors say of it.",
    "similarities": "How similar each live record is to the closest before it in its cluster.",
    "classified": "One row per live record: the score learned from the user's labels.",
    "scores": "One row per live record and one column per method; higher is more worth keeping.",
    "score_explanations": "Why each live record has its score, and the criterion that drops it.",
    "evaluation": "How well each method finds damage that was planted, by family of damage.",
    "side_effects": "What each method would prune, by language, length, licence and the like.",
    "stability": "How much of what a method prunes it prunes again when k-means starts elsewhere.",
    "device_statistics": "One row per image: its group, and statistics by stage of the pipeline.",
    "device_groups": "One row per group of live images, and whether there are enough to compare.",
    "device_shift": "How far two groups lie apart, by each measure, with its test.",
    "device_attribution": "Which stages make two groups differ, and how much each takes away.",
    "device_transfer": "How well a probe trained on one group tells the labels of another.",
    "device_leakage": "How much the group of an image says of its label.",
    "decisions": "One row per record: whether it is kept, or which stage dropped it and why.",
    "tokens": "Where each kept record begins in the sequences of tokens, and how many it has.",
    "shards": "Where each kept record stands in the shards: split, shard and position.",
    "curated": "The kept records whole, with their split.",
}

COLUMNS = {
    "record_id": "32 hex digits: the first 16 bytes of sha256(source, NUL, path).",
    "source": "The recipe's stable name for the input.",
    "path": "Path of the input below the source, '/'-separated; archive members as archive!member.",
    "repository": "Repository that the input belongs to.",
    "revision": "Revision of the repository.",
    "modality": "code or image.",
    "bytes": "Size of the content in bytes.",
    "content_sha256": "sha256 of the content, as hex digits.",
    "content": "The text.",
    "image": "The encoded image.",
    "language": "Programming language.",
    "lines": "Number of lines.",
    "license": "Licence that the input states.",
    "width": "Width in pixels.",
    "height": "Height in pixels.",
    "format": "Encoding of the image.",
    "device_make": "Maker of the camera, from the image's metadata.",
    "device_model": "Model of the camera, from the image's metadata.",
    "software": "Software that wrote the image, from the image's metadata.",
    "label": "Class of the image.",
    "split": "The split that the record went to.",
    "keep": "Whether the record is kept.",
    "stage": "The stage that dropped the record first, or keep.",
    "reason": "Why.",
    "score": "What the deciding stage measured.",
    "threshold": "What the score was held against.",
    "representative_id": "For a duplicate: the record that stays in its place.",
    "records": "Number of inputs.",
}
