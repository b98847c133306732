r"""A source file as a stream of tokens, in any language.

One lexer serves all languages: names, numbers, strings, operators, brackets, and the ends of lines
with the change of indentation. Comments are left out. A token is a 64-bit hash whose lowest five
bits hold its class and its shape, so a stream is one array, and all that follows is array work.

The lexical stream keeps names as they are. The abstract one keeps those that many files of the
language share (its keywords, its standard library) and turns all others into their shape, so that a
model of long contexts sees structure and not vocabulary.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Hashes: TypeAlias = NDArray[np.uint64]

OPERATOR, BRACKET, NAME, NUMBER, STRING, LINE, COMMON = range(7)
"""Classes of tokens: the lowest three bits. COMMON is a name of the abstract stream that stayed."""

_CLASS = np.uint64(7)
_SHAPE = np.uint64(31)
_KEPT_NUMBER, _KEPT_STRING = 3, 12

_HASHED = ("Python", "Bash", "Ruby", "Perl", "R", "YAML", "TOML", "Makefile", "Julia")
_DASHED = ("SQL", "Lua", "Haskell", "Ada")
_COMMENTS = {
    **dict.fromkeys(_HASHED, rb"#[^\n]*"),
    **dict.fromkeys(_DASHED, rb"--[^\n]*"),
    "PHP": rb"//[^\n]*|#[^\n]*|/\*(?s:.*?)(?:\*/|\Z)",
    "": rb"//[^\n]*|/\*(?s:.*?)(?:\*/|\Z)",
}
# What is frequent comes first; letters before a quote may be the string's.
_FIRST = rb"""[A-Za-z_$@\x80-\xff][\w$\x80-\xff]*+(?!["'])|\n\s*|[()\[\]{},;]"""
# What has no end goes to the end of the file, as compilers see it, and is not read again; nor is
# there a second way to read a backslash. So the time is linear in the text.
_QUOTED = rb"""[bBrRuUfFL]{0,2}(?:\"\"\"(?s:\\.|[^\\])*?(?:\"\"\"|\Z)"""
_QUOTED += rb"""|\'\'\'(?s:\\.|[^\\])*?(?:\'\'\'|\Z))"""
_QUOTED += rb"""|[bBrRuUfFL]{0,2}"(?:[^"\\\n]|\\(?s:.))*+"|`[^`]*`"""
# A quote in Rust also begins a lifetime, which has no end.
_SINGLE = rb"|[bBrRuUfFL]{0,2}'(?:[^'\\\n]|\\(?s:.))*+'"
_SINGLE_RUST = rb"|b?'(?:[^'\\\n]|\\[^'\n]{1,9}|\\')'"
_REST = (
    rb"|[0-9](?:[\w.]*[0-9\w])?|[A-Za-z_$@\x80-\xff][\w$\x80-\xff]*"
    rb"|<<=|>>=|>>>|===|!==|\*\*|\.\.\.|&&|\|\||->|=>|<-|::|:=|==|!=|<=|>=|\+\+|--|<<|>>"
    rb"|[-+*/%&|^]=|\?\.|\?\?|[^\s]"
)


class _Tokens(dict[bytes, int]):
    """Hash of a token by its bytes, made when first asked for."""

    def __missing__(self, token: bytes) -> int:
        if len(self) > _REMEMBERED:
            self.clear()
        value = self[token] = _describe(token)
        return value


_REMEMBERED = 2**20
_TOKENS = _Tokens()
_PATTERNS: dict[str | None, re.Pattern[bytes]] = {}


def lex(data: bytes, language: str | None) -> Hashes:
    """The lexical stream of a file.

    Numbers of more than three characters and strings of more than twelve are told by their shape
    alone. A line's end says whether the next line that is not blank stands deeper, the same, or
    less deep.

    Args:
        data: The text, UTF-8.
        language: Its language by the name of ``detect_language``; it says how comments begin. What
            is unknown is read like C.

    Returns:
        uint64 [tokens].
    """
    pattern = _PATTERNS.get(language)
    if pattern is None:
        comment = _COMMENTS.get(language or "", _COMMENTS[""])
        single = _SINGLE_RUST if language == "Rust" else _SINGLE
        branches = _FIRST + b"|" + comment + b"|" + _QUOTED + single + _REST
        pattern = re.compile(rb"(?=[^ \t\r\f\v])(?:" + branches + b")")
        _PATTERNS[language] = pattern
    found = pattern.findall(data)
    tokens = hash_tokens(found)
    return _with_line_ends(tokens[tokens != 0])


def hash_tokens(found: Sequence[bytes]) -> Hashes:
    """Hashes of single tokens, as ``lex`` gives them; 0 for a comment.

    Args:
        found: The tokens' bytes.

    Returns:
        uint64 [tokens].
    """
    return np.fromiter(map(_TOKENS.__getitem__, found), np.uint64, len(found))


def hash_text(text: bytes) -> int:
    """64-bit hash of bytes."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def classes(tokens: Hashes) -> NDArray[np.uint8]:
    """uint8 [tokens]: the class of each token."""
    return (tokens & _CLASS).astype(np.uint8)


def common_names(streams: Iterable[Hashes], share: float) -> Hashes:
    """Names that at least a share of the files use.

    Args:
        streams: Lexical streams, one per file.
        share: Least share of files, 0 to 1; a name of one file alone is never common.

    Returns:
        uint64, ascending and distinct.
    """
    names = [np.unique(stream[classes(stream) == NAME]) for stream in streams]
    if not names:
        return np.zeros(0, np.uint64)
    every, counts = np.unique(np.concatenate(names), return_counts=True)
    common: Hashes = every[counts >= max(share * len(names), 2)]
    return common


def abstract(tokens: Hashes, common: Hashes) -> Hashes:
    """The abstract stream of a lexical one.

    Args:
        tokens: uint64 [tokens].
        common: Names that stay, ascending.

    Returns:
        uint64 [tokens].
    """
    kinds = classes(tokens)
    out = tokens.copy()
    shaped = (kinds == NUMBER) | (kinds == STRING)
    names = kinds == NAME
    if len(common):
        place = np.minimum(np.searchsorted(common, tokens[names]), len(common) - 1)
        stays = common[place] == tokens[names]
        kept = np.flatnonzero(names)[stays]
        out[kept] = tokens[kept] & ~_CLASS | np.uint64(COMMON)
        names[kept] = False
    shaped |= names
    out[shaped] &= _SHAPE
    return out


def _describe(token: bytes) -> int:
    """Hash, shape (two bits) and class (three bits); 0 for a comment; a line's end has a width."""
    first = token[:1]
    if first == b"\n":
        indent = token[token.rindex(b"\n") + 1 :].expandtabs(4)
        return min(len(indent), 2**16) << 5 | LINE
    comment = token[:2] in (b"//", b"/*", b"--") and len(token) > 2
    if comment or (first == b"#" and len(token) > 1):
        return 0
    if first.isdigit():
        shape = {b"0": 0, b"1": 1}.get(token, 2 if len(token) < _KEPT_NUMBER else 3)
        return _coded(token if len(token) <= _KEPT_NUMBER else b"#", shape, NUMBER)
    if token[-1:] in b"\"'`" and len(token) > 1:
        inside = token[:-1].lstrip(b"bBrRuUfFL")[1:].strip(b"\"'")
        shape = 0 if not inside else 1 if inside.isalnum() else 2 if b" " in inside else 3
        short = len(inside) <= _KEPT_STRING and b"\n" not in inside
        return _coded(b'"' + inside if short else b'"', shape, STRING)
    if first.isalpha() or first in b"_$@" or first >= b"\x80":
        bare = token.strip(b"_$@")
        shape = 3 if len(bare) < 3 else 2 if bare.isupper() else int(bare[:1].isupper())
        return _coded(token, shape, NAME)
    return _coded(token, 0, BRACKET if token in b"()[]{}" else OPERATOR)


def _coded(text: bytes, shape: int, kind: int) -> int:
    return hash_text(text) & ~31 | shape << 3 | kind


def _with_line_ends(tokens: Hashes) -> Hashes:
    """Widths of lines become signs of change."""
    ends = np.flatnonzero(tokens & _CLASS == LINE)
    widths = (tokens[ends] >> np.uint64(5)).astype(np.int64)
    signs = np.sign(np.diff(widths, prepend=0)) + 1
    tokens[ends] = (signs.astype(np.uint64) << np.uint64(3)) | np.uint64(LINE)
    return tokens
