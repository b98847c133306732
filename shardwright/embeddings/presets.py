"""``preset:NAME``: models that are known to serve, and how their vectors are made.

Some are no sentence-transformers models on the Hub, so how tokens become one vector is said
here. ``preset:NAME:MODEL`` does the same with another size of the model, another revision
(``ORGANISATION/MODEL@REVISION``) or a folder.
"""

from dataclasses import dataclass
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers.processors import TemplateProcessing

from shardwright.errors import UserError


@dataclass(frozen=True)
class Preset:
    """A known model.

    Attributes:
        model: its name on the Hub.
        modality: ``code`` or ``image``, as recipes have it.
        licence: of the weights, as an SPDX id where there is one.
        dimension: of its vectors.
        pooling: ``mean`` or ``cls`` over the last layer; None leaves it to the model's own files.
        tokens: longest text in tokens; None for images.
        special: special tokens that its tokenizer lacks on the Hub, by role.
        gated: whether the Hub asks for an agreement first.
    """

    model: str
    modality: str
    licence: str
    dimension: int
    pooling: str | None = None
    tokens: int | None = None
    special: tuple[tuple[str, str], ...] = ()
    gated: bool = False


PRESETS = {
    # Code retrieval is in its training and its evaluation (CoIR); vectors are the first token's.
    "code": Preset("Alibaba-NLP/gte-modernbert-base", "code", "Apache-2.0", 768, "cls", 8192),
    "text": Preset("sentence-transformers/all-MiniLM-L6-v2", "code", "Apache-2.0", 384, None, 256),
    # What SCIP embeds with: the mean of the last layer, between the encoder's <cls> and <sep>.
    "starencoder": Preset(
        "bigcode/starencoder",
        "code",
        "BigCode OpenRAIL-M",
        768,
        "mean",
        1024,
        (
            ("cls_token", "<cls>"),
            ("sep_token", "<sep>"),
            ("pad_token", "<pad>"),
            ("mask_token", "<mask>"),
        ),
        gated=True,
    ),
    "clip": Preset("laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "image", "MIT", 768),
    "dinov2": Preset("facebook/dinov2-base", "image", "Apache-2.0", 768, "cls"),
}


def find_preset(rest: str) -> tuple[str, str]:
    """Name and model of ``NAME`` or ``NAME:MODEL``.

    Raises:
        UserError: there is no preset of this name.
    """
    name, _, model = rest.partition(":")
    if name not in PRESETS:
        known = ", ".join(f"preset:{each}" for each in PRESETS)
        raise UserError(f"embedding.model preset:{name} is unknown: use {known}")
    return name, model or PRESETS[name].model


def load_preset(
    preset: Preset, location: str, revision: str | None, device: str
) -> SentenceTransformer:
    """Loads a preset's model from the Hub at a commit, or from a folder.

    Args:
        preset: how its vectors are made.
        location: Hub name or folder.
        revision: commit; None for a folder.
        device: of torch.

    Raises:
        OSError, ValueError, KeyError: what is there is no such model.
    """
    found = {"revision": revision, "local_files_only": revision is None}
    model: SentenceTransformer
    if preset.pooling is None:
        model = SentenceTransformer(location, device=device, **found)
        return model
    transformer = Transformer(
        location,
        model_kwargs=dict(found),
        processor_kwargs=dict(found),
        config_kwargs=dict(found),
        max_seq_length=preset.tokens,
    )
    if preset.special:
        _add_special(transformer, dict(preset.special))
    pooling = Pooling(transformer.get_embedding_dimension(), preset.pooling)
    model = SentenceTransformer(modules=[transformer, pooling], device=device)
    return model


def _add_special(transformer: Transformer, tokens: dict[str, str]) -> None:
    """Names a tokenizer's special tokens and puts cls and sep around every text.

    Raises:
        ValueError: the model has no vector for one of them.
    """
    tokenizer: Any = transformer.tokenizer
    tokenizer.add_special_tokens(tokens)
    rows = transformer.model.get_input_embeddings().num_embeddings
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in tokens.values()}
    if missing := [token for token, place in ids.items() if place >= rows]:
        raise ValueError(f"the model has no vector for {', '.join(missing)}")
    cls, sep = tokens["cls_token"], tokens["sep_token"]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{cls} $A {sep}", special_tokens=[(cls, ids[cls]), (sep, ids[sep])]
    )
