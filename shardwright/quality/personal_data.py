"""Where do data of persons stand in code? E-mail and IP addresses, and phone numbers.

All functions take a text's UTF-8 read as Latin-1, where a character is a byte, and yield byte
ranges. They ask for precision: versions look like IP addresses, decorators and matrix products like
e-mail addresses, sums like phone numbers.
"""

import ipaddress
import re
from collections.abc import Iterator

_DOMAIN = re.compile(
    r"@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}([A-Za-z]{2,18}))"
    r"(?![\w(=@-]|\.[A-Za-z0-9_])"
)
_LOCAL = re.compile(r"[A-Za-z0-9_%+.-]+\Z")
# Of the domains with more than two letters those under which people have addresses.
_ESCAPED = re.compile(r"x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[0-7]{1,3}|[a-z]")
_DOMAINS = re.compile(
    "com|org|net|edu|gov|mil|int|info|biz|name|pro|dev|app|xyz|online|site|tech|cloud|email|"
    "science|academy|systems|software|engineering|consulting|solutions|agency|studio|design|"
    "company|network|services|institute|university|foundation"
)
_ROLES = re.compile(
    "no-?reply|do-?not-?reply|git|hg|svn|ssh|root|postmaster|webmaster|hostmaster|abuse|info|"
    "support|help|contact|security|admin|sales|bugs?|dev|devel|users?|username|lists?|team|hello|"
    "office|e?mail|name|you|your|me|someone|somebody|anonymous|foo|bar|baz|test|tester|testing|"
    "example|sample|.*-(?:bugs?|lists?|users?|dev|devel|sig|discuss|announce|request|owner|team)"
)
_NO_HOSTS = re.compile(
    "example|test|invalid|localhost|local|(?:my|your|some|other)?(?:domain|company|host|server)|"
    "foo|bar|baz|hostname|site|somewhere|noreply"
)

_IPV4 = re.compile(r"\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w/-]|\.\w)")
_IPV6 = re.compile(r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![\w/:]|\.\w)")
_VERSIONED = re.compile(
    r"(?:version|\bver\b|release|build|assembly|revision|\boid|section|chapter|rfc|"
    r"[A-Za-z]/|[=<>~!]=|\^)[^\n]{0,30}\Z",
    re.IGNORECASE,
)
_MOST_VERSION = 25
# In drawings' paths and tables a number like 3.51.98.32 is several.
_NUMBER_BEFORE = re.compile(r"\d[ ,]-?\Z")
_NUMBER_AFTER = re.compile(r"[ ,]-?[\d.]")

_PHONE = re.compile(r"\+[1-9](?:[ ./()-]{0,2}\d){7,14}(?![\w-])")


def emails(text: str) -> Iterator[tuple[int, int]]:
    """E-mail addresses of persons.

    None are those of roles (``info@``, ``noreply@``), of hosts that are reserved or mean none in
    particular (``example.org``, ``yourdomain.com``), and users in URLs and of services (``git@``).
    """
    for match in _DOMAIN.finditer(text):
        at = match.start()
        local = _LOCAL.search(text, max(at - 64, 0), at)
        if local is None:
            continue
        start = local.start()
        if text[start - 1 : start] == "\\":
            escape = _ESCAPED.match(text, start, at)
            start = start if escape is None else escape.end()
        name, labels = text[start:at].lower().strip(".-+%"), match[1].lower().split(".")
        if not name or _ROLES.fullmatch(name) or text[start - 1 : start] in (":", "/", "@"):
            continue
        if any(_NO_HOSTS.fullmatch(label) for label in labels):
            continue
        if not _is_top_domain(labels[-1]) or len(name) + len(labels[-2]) < 4:
            continue
        yield start, match.end()


def _is_top_domain(name: str) -> bool:
    """Countries' domains by phonenumbers' list of regions, and the common others."""
    import phonenumbers

    known = name.upper() in phonenumbers.SUPPORTED_REGIONS or name in ("eu", "su", "uk")
    return known or _DOMAINS.fullmatch(name) is not None


def ip_addresses(text: str) -> Iterator[tuple[int, int]]:
    """Public IP addresses, by ``ipaddress`` the global ones.

    Four numbers of which three are below 26, or that stand behind words and signs of versions, are
    a version or a section (which leaves out 8.8.8.8 too, nobody's address); with ``/24`` they are a
    network.
    """
    yield from _ipv4_addresses(text)
    yield from _ipv6_addresses(text)


def _ipv4_addresses(text: str) -> Iterator[tuple[int, int]]:
    for match in _IPV4.finditer(text):
        start = match.start()
        while start > match.start() - 4 and text[start - 1 : start].isdigit():
            start -= 1
        if start == match.start() or re.match(r"[\w.-]", text[start - 1 : start]):
            continue
        numbers = [int(number) for number in text[start : match.end()].split(".")]
        if numbers[:2] == [2, 5]:  # object identifiers of X.500
            continue
        small = sum(number <= _MOST_VERSION for number in numbers)
        if small >= 3 or len(set(numbers)) == 1 or "".join(map(str, numbers)) in "123456789":
            continue
        if _NUMBER_BEFORE.search(text, max(start - 4, 0), start) and _NUMBER_AFTER.match(
            text, match.end()
        ):
            continue
        line = text[max(text.rfind("\n", 0, start) + 1, start - 60) : start]
        if _is_public(text[start : match.end()]) and not _VERSIONED.search(line):
            yield start, match.end()


def _ipv6_addresses(text: str) -> Iterator[tuple[int, int]]:
    for match in _IPV6.finditer(text):
        before = text[match.start() - 1 : match.start()]
        if not re.match(r"[\w:.]", before) and _is_public(match[0]):
            yield match.span()


def _is_public(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast


def phone_numbers(text: str) -> Iterator[tuple[int, int]]:
    """Phone numbers written with ``+`` and country, valid by Google's metadata."""
    import phonenumbers

    for match in _PHONE.finditer(text) if "+" in text else ():
        before = text[match.start() - 1 : match.start()]
        digits = re.sub(r"\D", "", match[0])
        if before.isalnum() or before in tuple(")]}+=/_-") or "1234567" in digits:
            continue
        # the exchange of films, and decimal numbers
        if re.match(r"1...555", digits) or re.fullmatch(r"\+\d+\.\d+", match[0]):
            continue
        try:
            number = phonenumbers.parse(match[0])
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(number):
            yield match.span()
