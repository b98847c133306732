"""Texts a few at a time: what a tokenizer makes of them is many times larger than they are."""

from collections.abc import Iterator, Sequence


def slices(texts: Sequence[str], most: int) -> Iterator[list[str]]:
    """The texts in order, as many at a time as have ``most`` characters together, or a longer one.

    Args:
        texts: The texts.
        most: Characters.
    """
    held: list[str] = []
    size = 0
    for text in texts:
        if held and size + len(text) > most:
            yield held
            held, size = [], 0
        held.append(text)
        size += len(text)
    if held:
        yield held
