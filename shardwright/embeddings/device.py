"""Which device a setting ``auto | cpu | cuda`` means here."""

from shardwright.errors import UserError


def resolve_device(device: str, setting: str = "device") -> str:
    """Returns ``cpu`` or ``cuda``: ``auto`` is ``cuda`` where torch sees a GPU.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        setting: what the user set, as the error names it.

    Raises:
        UserError: the device is unknown, or ``cuda`` is asked for and torch sees no GPU.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"{setting} is {device!r}: use auto, cpu or cuda")
    if device == "cpu":
        return "cpu"
    import torch  # here, so that who asks for the CPU does not wait for it

    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UserError(f"{setting} is cuda, but torch sees no GPU: use cpu or auto")
    return "cuda" if available else "cpu"
