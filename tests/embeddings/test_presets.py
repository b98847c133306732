"""Presets, on tiny models of random weights that are built as the Hub's are."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModel, BertConfig, BertModel, PreTrainedTokenizerFast

from shardwright.embeddings import load_encoder
from shardwright.embeddings.presets import PRESETS, find_preset
from shardwright.errors import UserError

SPECIAL = ["<|endoftext|>", "<pad>", "<mask>", "<cls>", "<sep>"]
TEXTS = ["def add(a, b):\n    return a + b\n", "", "x = 1\n" * 900, "print('hello')"]


@pytest.fixture(scope="module")
def starencoder(tmp_path_factory):
    """BERT with 1,024 places and a byte-level BPE that puts nothing around a text."""
    folder = tmp_path_factory.mktemp("models") / "tiny-starencoder"
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(TEXTS, trainer)
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>").save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=bpe.get_vocab_size(),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=1024,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def load(model, **change):
    values = {"modality": "code", "device": "cpu", "dtype": "float32", "batch_size": 2}
    return load_encoder(model, **(values | change))


def test_starencoder_is_the_mean_between_cls_and_sep(starencoder):
    encoder = load(f"preset:starencoder:{starencoder}")
    rows = encoder.encode(TEXTS)
    tokenizer = Tokenizer.from_file(str(starencoder / "tokenizer.json"))
    model = AutoModel.from_pretrained(starencoder).eval()
    for row, text in zip(rows, TEXTS, strict=True):
        ids = tokenizer.encode(text).ids[:1022]
        ids = [SPECIAL.index("<cls>"), *ids, SPECIAL.index("<sep>")]
        with torch.inference_mode():
            mean = model(torch.tensor([ids])).last_hidden_state[0].mean(dim=0).numpy()
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-5)
    assert encoder.description["max_tokens"] == "1024"
    assert encoder.description["license"] == "BigCode OpenRAIL-M"
    assert encoder.description["tokens"] == "own"


def test_special_tokens_without_a_vector_are_refused(starencoder, tmp_path):
    config = BertConfig(vocab_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    BertModel(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((starencoder / name).read_bytes())
    with pytest.raises(UserError, match="the model has no vector for <sep>"):
        load(f"preset:starencoder:{tmp_path}")


def test_the_table():
    assert set(PRESETS) == {"code", "text", "starencoder", "clip", "dinov2"}
    assert find_preset("clip") == ("clip", PRESETS["clip"].model)
    assert find_preset("dinov2:facebook/dinov2-large") == ("dinov2", "facebook/dinov2-large")
    with pytest.raises(UserError, match="preset:magic is unknown: use preset:code, preset:text"):
        load("preset:magic")


def test_a_preset_of_another_modality(starencoder):
    with pytest.raises(UserError, match="encodes text, not image records"):
        load(f"preset:starencoder:{starencoder}", modality="image")
