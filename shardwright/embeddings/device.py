"""Which device a setting ``auto | cpu | cuda`` means here."""

import fcntl
import os
import tempfile

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


def claim_gpu(count: int) -> int:
    """Index of the GPU that this process works on, of ``count``.

    Worker processes of one machine share nothing but the machine, so each takes the first GPU
    that no other has a lock on; the lock dies with the process. When all are taken, the process
    id decides.
    """
    for index in range(count):
        path = os.path.join(tempfile.gettempdir(), f"shardwright-{os.getuid()}-gpu-{index}.lock")
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
        else:
            return index
    return os.getpid() % count
