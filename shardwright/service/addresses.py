"""Where the pages of the service are."""

from urllib.parse import quote, urlencode


def at(name: str, *parts: str, **query: object) -> str:
    """Address of a page of a curation."""
    path = "/".join(["/c", *(quote(part, safe="") for part in (name, *parts))])
    return f"{path}?{urlencode(query)}" if query else path
