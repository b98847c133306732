"""A small byte-level tokenizer with the tokens of fill-in-the-middle, made on the fly."""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"
SENTINELS = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")


def write_tokenizer(path: Path, special: tuple[str, ...] = (END, *SENTINELS)) -> Path:
    """Any text encodes to tokens and decodes to itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["def add(a, b):\n    return a + b\n"] * 5, trainer)
    tokenizer.enable_truncation(4)  # as a tokenizer saved with a model may have them
    tokenizer.enable_padding(length=4)
    tokenizer.save(str(path))
    return path
