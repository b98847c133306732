"""What crawling does to a text itself: decoded wrongly, lines merged, conflicts, blobs, repeats."""

import base64
import itertools
import random
import re

from shardwright.quality.corruptions.edits import Edit, Place
from shardwright.quality.corruptions.registry import Corruption
from shardwright.quality.corruptions.trees import WORD, Finder, Source

_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
# What a word processor writes for it.
_TYPED = re.compile(r"\"|'|\.\.\.| - | -- |(?<=[^ \n])  (?=[^ \n])")
_WORD_PROCESSOR = {  # where something opens, and elsewhere
    '"': ("\u201c", "\u201d"),
    "'": ("\u2018", "\u2019"),
    "...": ("\u2026",),
    " - ": (" \u2013 ",),
    " -- ": (" \u2014 ",),
    "  ": ("\u00a0 ",),
}
_OPENS = re.compile(r"[\s(\[{<=,:]")
_ENTITIES = {
    "<": ("&lt;",),
    ">": ("&gt;",),
    "&": ("&amp;",),
    '"': ("&quot;", "&#34;"),
    "'": ("&#39;", "&#x27;", "&apos;"),
}
_WIDTHS = (40, 60, 64, 72, 76, 78, 80)
_LINES_A_CONFLICT, _LINES_A_BLOB = 60, 120
# First bytes of what is found encoded within code, and what a data URI calls it.
_BLOBS = (
    (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", b"image/png"),
    (b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1", b"image/jpeg"),
    (b"GIF89a", b"image/gif"),
    (b"wOFF\0\1\0\0", b"font/woff"),
    (b"wOF2\0\1\0\0", b"font/woff2"),
    (b"\x1f\x8b\x08\0", b"application/gzip"),
    (b"x\x9c", b"application/octet-stream"),
    (b"PK\3\4\x14\0", b"application/zip"),
    (b"", b"application/octet-stream"),
)
_CONTENTS = (
    *(b"data", b"icon", b"blob", b"image", b"raw", b"logo", b"payload", b"font", b"cert", b"key"),
    *(b"fixture", b"bytes", b"encoded", b"asset", b"content", b"texture"),
)
_CONSTANTS = {
    "C": b'static const char %s[] = "%s";',
    "C++": b'constexpr char %s[] = "%s";',
    "Go": b'const %s = "%s"',
    "Java": b'    private static final String %s = "%s";',
    "JavaScript": b"const %s = '%s';",
    "Python": b'%s = "%s"',
    "Ruby": b'%s = "%s"',
    "Rust": b'const %s: &str = "%s";',
    "TypeScript": b'const %s = "%s";',
}


def _find_encodings(source: Source, rng: random.Random) -> list[Place]:
    """Runs that are no ASCII, read as another encoding; else quotes and dashes, or entities."""
    text = source.data.decode()
    codec = rng.choice(("cp1252", "cp1252", "latin-1"))
    rounds = rng.choice((1, 1, 1, 2))
    if not text.isascii():
        runs = _NOT_ASCII.finditer(text)
        found = [(match.span(), _misread(match[0], codec, rounds)) for match in runs]
    elif rng.random() < 0.5:
        found = _typography(text, codec) or _entities(text, rng)
    else:
        found = _entities(text, rng) or _typography(text, codec)
    places: list[Place] = [((*span, new.encode()),) for span, new in _in_bytes(text, found)]
    rng.shuffle(places)
    return places


def _misread(text: str, codec: str, rounds: int) -> str:
    """UTF-8 taken for another encoding; where that has no character, browsers take Latin-1."""
    for _ in range(rounds):
        read = []
        for byte in text.encode():
            try:
                read.append(bytes([byte]).decode(codec))
            except UnicodeDecodeError:
                read.append(chr(byte))
        text = "".join(read)
    return text


def _typography(text: str, codec: str) -> list[tuple[tuple[int, int], str]]:
    found = []
    for match in _TYPED.finditer(text):
        opens = match.start() == 0 or _OPENS.match(text, match.start() - 1) is not None
        new = _WORD_PROCESSOR[match[0]][0 if opens else -1]
        found.append((match.span(), _misread(new, codec, 1)))
    return found


def _entities(text: str, rng: random.Random) -> list[tuple[tuple[int, int], str]]:
    chosen = {character: rng.choice(ways) for character, ways in _ENTITIES.items()}
    return [
        ((place, place + 1), chosen[character])
        for place, character in enumerate(text)
        if character in chosen
    ]


def _in_bytes(
    text: str, found: list[tuple[tuple[int, int], str]]
) -> list[tuple[tuple[int, int], str]]:
    """The same ranges, in order, counted in bytes of UTF-8."""
    placed = []
    done = offset = 0
    for (start, stop), new in found:
        offset += len(text[done:start].encode())
        size = len(text[start:stop].encode())
        placed.append(((offset, offset + size), new))
        done, offset = stop, offset + size
    return placed


def _find_line_ends(source: Source, rng: random.Random) -> list[Place]:
    """Blocks of lines that become one, or long lines that are broken at one width."""
    if not source.data.strip():
        return []
    width = rng.choice(_WIDTHS)
    broken = [place for place in (_wrap(source, line, width) for line in source.lines) if place]
    if broken and rng.random() < 0.4:
        rng.shuffle(broken)
        return broken
    joint = rng.choice((b"", b" ", b" ", None))  # None: what stood before the next line stays
    places = []
    first = 0
    while first + 1 < len(source.lines):
        block = source.lines[first : first + rng.randint(2, 12)]
        edits = tuple(_join(source, *pair, joint) for pair in itertools.pairwise(block))
        if edits:
            places.append(edits)
        first += len(block)
    rng.shuffle(places)
    return places or broken


def _join(
    source: Source, line: tuple[int, int, int], following: tuple[int, int, int], joint: bytes | None
) -> Edit:
    start, stop = line[1], following[0]
    if joint is None:
        return start, stop, b""
    text = source.data[slice(*following[:2])]
    return start, stop + len(text) - len(text.lstrip(b" \t")), joint


def _wrap(source: Source, line: tuple[int, int, int], width: int) -> Place:
    start, stop, _ = line
    text = source.data[start:stop].decode()
    ends = [len(text[:at].encode()) for at in range(width, len(text), width)]
    return tuple((start + end, start + end, source.newline) for end in ends)


def _find_conflicts(source: Source, rng: random.Random) -> list[Place]:
    """Stretches of up to eight lines, and beside each the same with a change."""
    lines = source.lines
    places: list[Place] = []
    for first in _spread(rng, len(lines), 1 + len(lines) // _LINES_A_CONFLICT):
        stretch = lines[first : first + rng.randint(1, 8)]
        if not source.data[stretch[0][0] : stretch[-1][2]].strip():
            continue
        ours = [source.data[start:stop] for start, stop, _ in stretch]
        theirs = _vary(ours, rng)
        mine, other = _labels(source, rng)
        start, bare = stretch[0][0], stretch[-1][1]
        above = [b"<<<<<<< " + mine]
        below = [b"=======", *theirs, b">>>>>>> " + other]
        if rng.random() < 0.5:
            above, below = [*above, *theirs, b"======="], [b">>>>>>> " + other]
        if rng.random() < 0.15:
            below = [b"||||||| " + _hash(rng), *ours, *below] if len(below) > 1 else below
        head = b"".join(line + source.newline for line in above)
        tail = b"".join(source.newline + line for line in below)
        places.append(((start, start, head), (bare, bare, tail)))
    return places


def _vary(lines: list[bytes], rng: random.Random) -> list[bytes]:
    """The lines as somebody else has them: one gone, changed, doubled, or two exchanged."""
    varied = lines[:]
    at = rng.randrange(len(varied))
    way = rng.randrange(4)
    words = WORD.findall(b" ".join(lines))
    if way == 0 and len(varied) > 1:
        del varied[at]
    elif way == 1 and len(set(varied)) > 1:
        varied.insert(at, varied.pop())
    elif way == 2 and len(words) > 1:
        old, new = rng.choice(words), rng.choice(words)
        varied = [line.replace(old, new + b"s" if old == new else new) for line in varied]
    if varied == lines:
        numbers = re.sub(rb"[0-9]+", lambda match: b"%d" % (int(match[0][:9]) + 1), varied[at])
        varied[at] = numbers if numbers != varied[at] else varied[at].rstrip(b";:, ")
    if varied == lines:
        varied.insert(at, varied[at])
    return varied


def _labels(source: Source, rng: random.Random) -> tuple[bytes, bytes]:
    """Names of the two sides as git, a rebase, a stash and people write them."""
    words = _some_words(source, rng)
    separator = rng.choice((b"-", b"-", b"_", b"/"))
    topic = separator.join(word.lower() for word in words)
    prefixes = (b"feature/", b"fix/", b"origin/", b"bugfix/", b"dev/", b"release/", b"users/", b"")
    branch = rng.choice(prefixes) + topic
    subject = b" ".join(word.lower() for word in words)
    verb = rng.choice((b"add", b"fix", b"update", b"remove", b"refactor", b"rename", b"use"))
    commit = b"%s (%s %s)" % (_hash(rng)[:7], verb, subject)
    if rng.random() < 0.15:
        return b"Updated upstream", b"Stashed changes"
    mine = rng.choice((b"HEAD", b"HEAD", b"HEAD", b"ours", b".mine", branch + b"-local"))
    usual = (b"master", b"main", b"origin/master", b"origin/main", b"develop", b"theirs")
    return mine, rng.choice((branch, branch, branch, _hash(rng), commit, rng.choice(usual)))


def _hash(rng: random.Random) -> bytes:
    return rng.randbytes(20).hex()[: rng.choice((7, 8, 10, 40))].encode()


def _some_words(source: Source, rng: random.Random) -> list[bytes]:
    words = source.words or [b"main", b"update", b"data", b"config"]
    return [rng.choice(words) for _ in range(rng.randint(1, 3))]


def _find_blob_places(source: Source, rng: random.Random) -> list[Place]:
    """Beginnings of lines; what is put there is random, apart from what a format begins with."""
    starts = [start for start, bare, _ in source.lines if source.data[start:bare].strip()]
    if not starts:
        return []
    count = min(len(starts), 1 + len(starts) // _LINES_A_BLOB)
    return [((at, at, _blob(source, rng)),) for at in rng.sample(starts, count)]


def _blob(source: Source, rng: random.Random) -> bytes:
    magic, media = rng.choice(_BLOBS)
    content = magic + rng.randbytes(int(2 ** rng.uniform(8, 13)))
    encode = rng.choice((base64.b64encode,) * 4 + (base64.urlsafe_b64encode, base64.b16encode))
    text = encode(content)
    if rng.random() < 0.25:  # as mail and certificates have it
        width = rng.choice((64, 76))
        rows = [text[at : at + width] for at in range(0, len(text), width)]
        return b"".join(row + source.newline for row in rows)
    if encode is base64.b64encode and rng.random() < 0.4:
        text = b"data:%s;base64,%s" % (media, text)
    words = _some_words(source, rng)
    if rng.random() < 0.5:
        words.append(rng.choice(_CONTENTS))
    name = b"_".join(word.lower() for word in words)
    if source.language in ("JavaScript", "TypeScript", "Go"):
        name = words[0].lower() + b"".join(word.capitalize() for word in words[1:])
    elif source.language not in ("C", "C++"):
        name = name.upper()
    constant = _CONSTANTS.get(source.language or "", b'%s: "%s"')
    return constant % (name, text) + source.newline


def _find_repeats(source: Source, rng: random.Random) -> list[Place]:
    """A stretch between empty lines, put behind itself or behind others over and over."""
    stretches: list[tuple[int, int, int]] = []  # start, stop, lines
    for start, bare, stop in source.lines:
        if not source.data[start:bare].strip():
            stretches.append((stop, stop, 0))
        elif stretches:
            first, _, count = stretches[-1]
            stretches[-1] = (first, stop, count + 1)
        else:
            stretches.append((start, stop, 1))
    stretches = [stretch for stretch in stretches if stretch[2]]
    long = [stretch for stretch in stretches if 3 <= stretch[2] <= 60]
    if not long:
        return []
    header = long[0] if long[0][0] == 0 and rng.random() < 0.5 else rng.choice(long)
    copy = source.data[slice(*header[:2])]
    copy = copy if copy.endswith(b"\n") else copy + source.newline
    behind = header[1] if rng.random() < 0.6 else None
    places: list[Place] = []
    for _ in range(rng.randint(4, 40)):
        at = rng.choice(stretches)[1] if behind is None else behind
        unended = at == len(source.data) and not source.data.endswith(b"\n")
        gap = source.newline * (2 if unended else 1)
        places.append(((at, at, gap + copy),))
    return places


def _spread(rng: random.Random, lines: int, count: int) -> list[int]:
    """Numbers of lines, one in each of as many equal parts of the file, in any order."""
    if not lines:
        return []
    size = lines / count
    found = [int(part * size + rng.random() * size) for part in range(count)]
    rng.shuffle(found)
    return [min(line, lines - 1) for line in found]


def _kind(name: str, family: str, description: str) -> Corruption:
    return Corruption(name, "code", "crawl", family, None, False, description)


KINDS: tuple[tuple[Corruption, Finder], ...] = (
    (
        _kind("mojibake", "encoding", "Characters were decoded wrongly, or escaped for a page."),
        _find_encodings,
    ),
    (
        _kind("merge_lines", "layout", "Lines are joined, or broken at one width within words."),
        _find_line_ends,
    ),
    (
        _kind("conflict_marks", "conflict", "A merge left both sides and its marks."),
        _find_conflicts,
    ),
    (
        _kind("embed_base64", "embedded", "Long encoded data stands among the lines."),
        _find_blob_places,
    ),
    (
        _kind("repeat_boilerplate", "repetition", "A stretch of the file is repeated many times."),
        _find_repeats,
    ),
)
