"""Secrets and personal data that stand in code: find them, count them, mask them.

Secrets are what detect-secrets' detectors of token formats find (not its entropy detectors: code is
full of strings of high entropy), a few formats that it lacks, private keys with their body, and
values that are assigned to names like ``password`` and look drawn at random. Placeholders
(``changeme``, AWS's example keys) are none. For personal data see ``personal_data``.

A detector runs only where a literal that its matches need is found, which few texts hold. Offsets
are of bytes: texts are read as Latin-1, where a byte is a character.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from shardwright.quality.filters import CodeGroup, Filter, Value
from shardwright.quality.personal_data import emails, ip_addresses, phone_numbers


@dataclass(frozen=True, order=True)
class Span:
    """A finding: bytes ``start`` to ``stop`` (excluded) of the text's UTF-8, and what is there."""

    start: int
    stop: int
    kind: str


@dataclass(frozen=True)
class _Detector:
    """Formats of one kind of token.

    Attributes:
        kind: Kind of the spans.
        signs: Literals of which one stands in every text that has a match. Those in lower case are
            looked for in any case.
        patterns: The formats.
        group: The group that is the secret, where a pattern has groups.
        weak: Whether the secret is what a person chose, and must look drawn at random.
        closed: Whether a longer run of letters and digits is something else; otherwise the
            secret goes on to the run's end.
    """

    kind: str
    signs: tuple[bytes, ...]
    patterns: tuple[re.Pattern[str], ...]
    group: int = 0
    closed: bool = False
    weak: bool = False


_MASK = bytearray(range(0x80)) + bytearray(b"x" * 0x80)
_MASK[ord("0") : ord("9") + 1] = b"0" * 10
_MASK[ord("A") : ord("Z") + 1] = _MASK[ord("a") : ord("z") + 1] = b"x" * 26

_NO_WORD = re.compile(r"[^A-Za-z0-9_-]|\Z")
_KEY_BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----")
# Base64 in lines, as text or in strings, and headers like "DEK-Info: AES-128-CBC,0123"; no code.
_KEY_BODY = re.compile(r"[A-Za-z0-9+/=\s\"'`\\,:;#*.-]{0,20000}")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}-----")
_KEY_RUN = re.compile(r"[A-Za-z0-9+/]{40,}={0,2}")

_JSON_WEB_TOKEN = (
    r"eyJ(?<![A-Za-z0-9_-]eyJ)[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}"
)

_NAMES = (
    b"passw",
    b"passphrase",
    b"pwd",
    b"secret",
    b"token",
    b"api_key",
    b"apikey",
    b"api-key",
    b"auth_key",
    b"access_key",
    b"accesskey",
    b"private_key",
    b"credential",
)
_CURSORS = (b"continuation", b"next", b"next_", b"page", b"page_")  # of tokens into lists
_WEAK_NAMES = (b"passw", b"passphrase", b"pwd")
_ASSIGNED = re.compile(
    r"[\w.-]{0,24}(?:\[\w{0,8}\])?[\"'`\]]{0,2}\s{0,3}"
    r"(?::\s{0,3}[\w\[\].<>*&]{1,20}\s{0,3}=|:=|:|={1,3}>?)\s{0,3}"
    r"[a-zA-Z@]{0,2}([\"'`])([^\"'`\s\\]{8,200})\1"
)
_ASSIGNED_PLAIN = re.compile(r"[A-Z0-9_]{0,24}=()([A-Za-z0-9+/=_-]{16,100})[ \t]*(?=[\r\n]|\Z)")
_CODE = re.compile(r"[{}<>$%()\[\]*]|//|\.\.|::|->")
_IDENTIFIER = re.compile(r"[A-Za-z]+(?:[-_./:][A-Za-z0-9]+)*[0-9]{0,4}")
_HEX = re.compile(r"[0-9A-Fa-f]+")
_LONG_WORD = re.compile(r"[a-z]{10}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_DATE = re.compile(r"[12]\d{3}-\d\d-\d\d")

_PLACEHOLDERS = (
    *("example", "sample", "changeme", "replace", "your", "dummy", "fake", "placeholder"),
    *("redacted", "xxxx", "1234567", "abcdef", "00000", "11111", "....", "deadbeef"),
)
_WEAK_PLACEHOLDERS = (
    *("test", "todo", "none", "null", "undefined", "foo", "bar", "secret", "passw", "admin"),
    *(
        "default",
        "12345",
        "abc123",
        "qwerty",
        "token",
        "user",
        "letmein",
        "hello",
        "mock",
        "insert",
    ),
    *("value", "string", "login", "root", "key"),
)


def find_secrets(text: str) -> list[Span]:
    """Finds secrets; kinds are those of the detectors, ``private_key`` and ``assigned_secret``.

    Args:
        text: The text.

    Returns:
        Byte ranges in the text's UTF-8, sorted and disjoint.
    """
    data = text.encode()
    lowered = data.lower()
    latin = data.decode("latin-1")
    spans: list[Span] = []
    if b"PRIVATE KEY" in data:
        spans += _private_keys(latin)
    for detector in _detectors():
        if any(sign in (lowered if sign.islower() else data) for sign in detector.signs):
            spans += _tokens(latin, detector)
    spans += _assigned(latin, lowered)
    return _disjoint(spans)


def find_personal_data(text: str) -> list[Span]:
    """Finds personal data; kinds are ``email``, ``ip_address`` and ``phone_number``.

    Args:
        text: The text.

    Returns:
        Byte ranges in the text's UTF-8, sorted and disjoint.
    """
    latin = text.encode().decode("latin-1")
    finders = {"email": emails, "ip_address": ip_addresses, "phone_number": phone_numbers}
    return _disjoint([Span(*at, kind) for kind, find in finders.items() for at in find(latin)])


def mask(data: bytes, spans: Iterable[Span]) -> bytes:
    """Overwrites spans: letters with ``x``, digits with ``0``, other scripts with ``x`` a byte.

    All else stays, and so do length, lines and syntax.

    Args:
        data: The text, UTF-8.
        spans: Byte ranges, in any order.
    """
    masked = bytearray(data)
    for span in spans:
        masked[span.start : span.stop] = masked[span.start : span.stop].translate(_MASK)
    return bytes(masked)


def measure_secrets(data: bytes, language: str | None = None) -> dict[str, Value]:
    """Number of findings of secrets."""
    return {"secrets": float(len(find_secrets(data.decode())))}


def measure_personal_data(data: bytes, language: str | None = None) -> dict[str, Value]:
    """Number of findings of personal data."""
    return {"personal_data": float(len(find_personal_data(data.decode())))}


def _disjoint(spans: list[Span]) -> list[Span]:
    """Sorted; what overlaps becomes one, of the kind that begins first."""
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.start < merged[-1].stop:
            last = merged.pop()
            span = Span(last.start, max(last.stop, span.stop), last.kind)
        merged.append(span)
    return merged


@functools.cache
def _detectors() -> tuple[_Detector, ...]:
    from detect_secrets.plugins import (
        aws,
        azure_storage_key,
        basic_auth,
        discord,
        github_token,
        gitlab_token,
        mailchimp,
        pypi_token,
        sendgrid,
        slack,
        square_oauth,
        stripe,
        telegram_token,
        twilio,
    )

    def found_by(
        plugin: Any, *signs: bytes, group: int = 0, closed: bool = False, weak: bool = False
    ) -> _Detector:
        kind = re.sub(r"[^a-z]+", "_", plugin.secret_type.lower())
        return _Detector(kind, signs, tuple(plugin.denylist), group, closed, weak)

    def own(kind: str, *signs: bytes, pattern: str, closed: bool = False) -> _Detector:
        return _Detector(kind, signs, (re.compile(pattern),), 0, closed)

    return (
        found_by(
            aws.AWSKeyDetector,
            *(b"AKIA", b"ASIA", b"aws"),
            group=1,
            closed=True,
        ),
        found_by(azure_storage_key.AzureStorageKeyDetector, b"AccountKey="),
        found_by(basic_auth.BasicAuthDetector, b"://", group=1, weak=True),
        found_by(discord.DiscordBotTokenDetector, b"discord", closed=True),
        found_by(github_token.GitHubTokenDetector, b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_"),
        found_by(
            gitlab_token.GitLabTokenDetector, b"glpat-", b"gldt-", b"glrt-", b"glptt-", b"GR13"
        ),
        found_by(mailchimp.MailchimpDetector, b"mailchimp", closed=True),
        found_by(pypi_token.PypiTokenDetector, b"pypi-AgE"),
        found_by(sendgrid.SendGridDetector, b"SG."),
        found_by(slack.SlackDetector, b"xox", b"hooks.slack.com"),
        found_by(square_oauth.SquareOAuthDetector, b"sq0csp-"),
        found_by(stripe.StripeDetector, b"k_live_"),
        found_by(telegram_token.TelegramBotTokenDetector, b":AA"),
        found_by(twilio.TwilioKeyDetector, b"twilio", closed=True),
        own(
            "anthropic_api_key", b"sk-ant-", pattern=r"sk-ant-[a-z0-9]{3,10}-[A-Za-z0-9_-]{80,120}"
        ),
        own("azure_client_secret", b"Q~", pattern=r"[\w~.]{3}\dQ~[\w~.-]{31,34}"),
        own("github_token", b"github_pat_", pattern=r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
        own("google_api_key", b"AIza", pattern=r"AIza[0-9A-Za-z_-]{35}", closed=True),
        own("google_client_secret", b"GOCSPX-", pattern=r"GOCSPX-[0-9A-Za-z_-]{28}"),
        own("hugging_face_token", b"hf_", pattern=r"hf_[A-Za-z]{34}", closed=True),
        own("json_web_token", b"eyJ", pattern=_JSON_WEB_TOKEN),
        own("npm_token", b"npm_", pattern=r"npm_[A-Za-z0-9]{36}", closed=True),
        own(
            "openai_token",
            b"T3BlbkFJ",
            pattern=r"sk-[A-Za-z0-9_-]{0,96}[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9_-]{20,96}",
        ),
    )


def _private_keys(text: str) -> Iterator[Span]:
    """Private keys that have a body: code that reads keys names their first line too."""
    done = 0
    for match in _KEY_BEGIN.finditer(text):
        body = None if match.start() < done else _KEY_BODY.match(text, match.end())
        if body is None:
            continue
        end = _KEY_END.search(text, *body.span())
        done = end.start() if end is not None else body.end()
        runs = list(_KEY_RUN.finditer(text, match.end(), done))
        if runs and not _is_placeholder(runs[0][0]):
            done = end.end() if end is not None else runs[-1].end()
            yield Span(match.start(), done, "private_key")


def _tokens(text: str, detector: _Detector) -> Iterator[Span]:
    for pattern in detector.patterns:
        group = min(detector.group, pattern.groups)
        done = 0
        for match in pattern.finditer(text):
            start, stop = match.span(group)
            if start < done:
                continue
            before, after = text[start - 1 : start], text[stop : stop + 1]
            if before.isalnum() or (detector.closed and after.isalnum()):
                continue
            if group == 0 and not detector.closed:
                stop = done = _past_word(text, stop)
            secret = text[start:stop]
            if not (_is_placeholder(secret) or (detector.weak and not _is_random(secret, True))):
                yield Span(start, stop, detector.kind)


def _past_word(text: str, position: int) -> int:
    end = _NO_WORD.search(text, position)
    return len(text) if end is None else end.start()


def _assigned(text: str, lowered: bytes) -> Iterator[Span]:
    for name in _NAMES:
        position = lowered.find(name)
        while position >= 0:
            stop = position + len(name)
            quoted = _ASSIGNED.match(text, stop)
            found = quoted or _ASSIGNED_PLAIN.match(text, stop)
            weak = quoted is not None and name in _WEAK_NAMES
            if found and not lowered.endswith(_CURSORS, 0, position) and _is_random(found[2], weak):
                yield Span(*found.span(2), "assigned_secret")
            position = lowered.find(name, stop)


def _is_random(value: str, weak: bool) -> bool:
    """Whether a value looks drawn at random; passwords are often shorter and weaker than keys."""
    if _is_placeholder(value) or _CODE.search(value) or _IDENTIFIER.fullmatch(value):
        return False
    if _UUID.search(value) or _DATE.match(value) or _LONG_WORD.search(value):
        return False
    lowered = value.lower()
    if any(word in lowered for word in _WEAK_PLACEHOLDERS):
        return False
    letters, digits = re.search("[A-Za-z]", value), re.findall("[0-9]", value)
    if weak:
        return bool(letters) and bool(digits) and _entropy(value) >= 2.7
    least = 32 if _HEX.fullmatch(value) else 16
    return bool(letters) and len(digits) >= 2 and len(value) >= least and _entropy(value) >= 3.3


def _is_placeholder(value: str) -> bool:
    lowered = value.lower()
    if any(word in lowered for word in _PLACEHOLDERS):
        return True
    return len({char for char in lowered if char.isalnum()} - {"x", "0"}) < 3


def _entropy(value: str) -> float:
    """Shannon entropy of the characters' frequencies, in bits per character."""
    shares = [count / len(value) for count in Counter(value).values()]
    return -math.fsum(share * math.log2(share) for share in shares)


FILTERS = (
    Filter(
        "secrets",
        "code",
        "number",
        None,
        0.0,
        "Number of secrets found: private keys, tokens of services, passwords (most 0).",
        "secrets",
    ),
    Filter(
        "personal_data",
        "code",
        "number",
        None,
        None,
        "Number of e-mail addresses, public IP addresses and phone numbers found.",
        "personal_data",
    ),
)

GROUPS: dict[str, CodeGroup] = {
    "secrets": measure_secrets,
    "personal_data": measure_personal_data,
}
