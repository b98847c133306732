"""The two kinds of failure that a user sees as one line; everything else is a bug."""


class UserError(Exception):
    """Wrong usage or recipe: the message names the value, the place and the remedy (exit 2)."""


class DataError(Exception):
    """The data or a check failed: the message says which and what to do (exit 1)."""
