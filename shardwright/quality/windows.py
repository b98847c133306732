"""Windows of a record: damage is local, and a look at the whole dilutes it."""

import io

import numpy as np

WINDOW_CHARACTERS = 1024
MOST_WINDOWS = 8
_SIDES = 2


def text_windows(text: str) -> list[str]:
    """Cuts a text at line ends into pieces of about a thousand characters.

    Args:
        text: Any text.

    Returns:
        One window at least, eight at most: of more, eight evenly spaced ones. A line longer than a
        window is cut; what is left at the end belongs to the window before it if it is short.
    """
    windows: list[str] = []
    held: list[str] = []
    size = 0
    for line in text.splitlines(keepends=True):
        for first in range(0, len(line), WINDOW_CHARACTERS):
            piece = line[first : first + WINDOW_CHARACTERS]
            if held and size + len(piece) > WINDOW_CHARACTERS:
                windows.append("".join(held))
                held, size = [], 0
            held.append(piece)
            size += len(piece)
    rest = "".join(held)
    if windows and len(rest) < WINDOW_CHARACTERS // 4:
        windows[-1] += rest
    else:
        windows.append(rest)
    places = np.linspace(0, len(windows) - 1, min(len(windows), MOST_WINDOWS)).round()
    return [windows[int(place)] for place in places]


def image_windows(data: bytes) -> list[bytes]:
    """Cuts a picture into quarters.

    Args:
        data: The encoded picture.

    Returns:
        Four pictures as BMP, left to right, then down; the picture alone if it is too small.
    """
    from shardwright.embeddings.pixels import decode_rgb

    image = decode_rgb(data)
    width, height = image.size
    if min(width, height) < 2 * _SIDES:
        return [data]
    quarters = []
    for row in range(_SIDES):
        for column in range(_SIDES):
            box = (
                column * width // _SIDES,
                row * height // _SIDES,
                (column + 1) * width // _SIDES,
                (row + 1) * height // _SIDES,
            )
            buffer = io.BytesIO()
            image.crop(box).save(buffer, "BMP")
            quarters.append(buffer.getvalue())
    return quarters
