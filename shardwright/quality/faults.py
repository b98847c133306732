"""What a check answers when an input is no good."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """Why an input is refused: the reason's code, and what was found."""

    reason: str
    message: str
