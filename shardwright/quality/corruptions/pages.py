"""What tools and pages leave around a text: placeholders of templates, the frame of a web page."""

import html
import random
import re

from shardwright.quality.corruptions.edits import Place
from shardwright.quality.corruptions.registry import Corruption
from shardwright.quality.corruptions.trees import Finder, Source

_NAME = re.compile(rb"(?<![\w.])[A-Za-z_]\w{3,30}(?!\w)")
_QUOTED = re.compile(rb"(?<=\")[^\"\\\n\r]{3,60}(?=\")|(?<=')[^'\\\n\r]{3,60}(?=')")
_BYTES_A_PLACE = 400
_STYLES = (
    b"{{ cookiecutter.%s }}",
    b"{{cookiecutter.%s}}",
    b"{{ %s }}",
    b"{{%s}}",
    b"{{{%s}}}",
    b"<%%= %s %%>",
    b"<%%= @%s %%>",
    b"${%s}",
    b"@%s@",
    b"%%(%s)s",
    b"__%s__",
    b"<#%s#>",
    b"[[%s]]",
)
_SUBJECTS = (
    *(b"project_name", b"project_slug", b"package", b"package_name", b"module", b"app_name"),
    *(b"author", b"author_name", b"email", b"version", b"year", b"namespace", b"class_name"),
    *(b"entity", b"model", b"table", b"service", b"repo_name", b"license", b"description"),
    *(b"prefix", b"target", b"config", b"user", b"org"),
)
_CONDITIONS = (
    (b"{%% if %s %%}", b"{%% endif %%}"),
    (b"{%%- if %s -%%}", b"{%%- endif %%}"),
    (b"{%% for item in %s %%}", b"{%% endfor %%}"),
    (b"<%% if %s %%>", b"<%% end %%>"),
    (b"{{#if %s}}", b"{{/if}}"),
    (b"{{#%s}}", b"{{/%s}}"),
    (b"<#if %s??>", b"</#if>"),
    (b"{{- if .%s }}", b"{{- end }}"),
)
_TODOS = (
    *(
        b"TODO: implement",
        b"TODO implement this",
        b"TODO: add your code here",
        b"TODO(%s): fill in",
    ),
    *(b"Your code goes here", b"FIXME: replace with %s", b"TODO: handle %s", b"INSERT %s HERE"),
)
_HASHES = frozenset({"Bash", "Makefile", "Perl", "Python", "R", "Ruby", "TOML", "YAML"})

_BANNERS = (
    *("Skip to content", "Sign in", "Sign up", "Toggle navigation", "Search", "Home", "Explore"),
    *("Log in", "Products", "Pricing", "Docs", "Menu", "Blog", "Issues", "Pull requests"),
    *("Actions", "Projects", "Wiki", "Insights", "Raw", "Blame", "History", "Copy", "Download"),
    *("Go to file", "Open with Desktop", "View raw", "Copy path", "Permalink", "Edit", "Share"),
)
_ENDINGS = (
    *("Terms", "Privacy", "Security", "Status", "Contact", "About", "Help", "Cookie settings"),
    *("Back to top", "Jump to Line", "Go", "Follow", "Report this page", "Powered by"),
    *("All rights reserved.", "Leave a comment", "Related posts", "Previous", "Next", "Reply"),
    *("Share Improve this answer Follow", "Was this helpful?", "Copy link", "Load more"),
)


def _find_templates(source: Source, rng: random.Random) -> list[Place]:
    """Names (all places of one), texts in quotes, and lines, all in one style of template."""
    style = rng.choice(_STYLES)
    opening, closing = rng.choice(_CONDITIONS)
    names: dict[bytes, list[re.Match[bytes]]] = {}
    for match in _NAME.finditer(source.data):
        names.setdefault(match[0], []).append(match)
    count = 1 + len(source.data) // _BYTES_A_PLACE
    places: list[Place] = []
    for name in rng.sample(sorted(names), min(count, len(names))):
        subject = rng.choice((rng.choice(_SUBJECTS), name))
        new = style % _dressed(style, subject)
        places.append(tuple((*match.span(), new) for match in names[name][:50]))
    quoted = list(_QUOTED.finditer(source.data))
    for match in rng.sample(quoted, min(count, len(quoted))):
        new = style % _dressed(style, rng.choice(_SUBJECTS))
        places.append(((*match.span(), new),))
    lines = [line for line in source.lines if source.data[line[0] : line[1]].strip()]
    for start, bare, _ in rng.sample(lines, min(1 + count // 2, len(lines))):
        text = source.data[start:bare]
        before = text[: len(text) - len(text.lstrip(b" \t"))]
        subject = rng.choice(_SUBJECTS)
        if rng.random() < 0.5:
            first, last = _fill(opening, subject), _fill(closing, subject)
            places.append(
                ((start, start, first + source.newline), (bare, bare, source.newline + last))
            )
        else:
            mark = b"# " if source.language in _HASHES else b"// "
            todo = before + mark + _fill(rng.choice(_TODOS), subject)
            places.append(((start, bare, todo),))
    rng.shuffle(places)
    return places


def _dressed(style: bytes, subject: bytes) -> bytes:
    """Autoconf and the like shout."""
    return subject.upper() if style.startswith((b"@", b"__")) else subject


def _fill(template: bytes, subject: bytes) -> bytes:
    return template % subject if b"%s" in template else template.replace(b"%%", b"%")


def _find_pages(source: Source, rng: random.Random) -> list[Place]:
    """The frame of the page first, then its lines from above, as far as the dose goes."""
    if not source.data.strip():
        return []
    marked = rng.random() < 0.5
    above = _frame(_BANNERS, rng, marked)
    below = _frame(_ENDINGS, rng, marked)
    size = len(source.data) / 1024
    facts = (
        f"{len(source.lines)} lines ({sum(1 for s, b, _ in source.lines if b > s)} sloc)",
        f"{size:.{rng.choice((1, 2))}f} KB",
        f"Viewed {rng.randint(2, 90)}k times",
        f"Updated {rng.randint(2, 11)} months ago",
        f"Latest commit {rng.randbytes(4).hex()[:7]} on {rng.choice(_MONTHS)} {rng.randint(1, 28)}",
        f"asked {rng.choice(_MONTHS)} {rng.randint(1, 28)} at {rng.randint(0, 23)}:"
        f"{rng.randint(0, 59):02}",
    )
    chosen = rng.sample(facts, rng.randint(1, 3))
    above += [f"<span>{fact}</span>" if marked else fact for fact in chosen]
    below += _last_line(rng, marked)
    end = len(source.data)
    gap = b"" if source.data.endswith(b"\n") else source.newline
    head = b"".join(line.encode() + source.newline for line in above)
    tail = gap + b"".join(line.encode() + source.newline for line in below)
    frame: Place = ((0, 0, head), (end, end, tail))
    return [frame, *_page_lines(source, rng, marked)]


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _last_line(rng: random.Random, marked: bool) -> list[str]:
    year = rng.randint(2008, 2025)
    if marked:
        return rng.choice(([], ["</body></html>"], ["</div>"], ["</pre></div>"], ["</table>"]))
    return rng.choice(
        ([], [f"© {year}"], [f"Copyright {year}"], [f"{rng.randint(1, 40)} comments"])
    )


def _frame(words: tuple[str, ...], rng: random.Random, marked: bool) -> list[str]:
    chosen = rng.sample(words, rng.randint(3, 9))
    if not marked:
        return chosen if rng.random() < 0.7 else [" | ".join(chosen)]
    kind = rng.choice(("nav", "menu", "header", "toolbar", "btn", "link", "item"))
    return [
        f'<a class="{kind}-{rng.choice(("item", "link", "text"))}" href="#">{word}</a>'
        for word in chosen
    ]


def _page_lines(source: Source, rng: random.Random, marked: bool) -> list[Place]:
    """Numbers before the lines, and for the source of a page its tags and entities."""
    first = rng.choice((1, 1, 1, rng.randint(2, 400)))
    ways: tuple[str, ...] = (
        "{:>4} ",
        "{}\t",
        "{}: ",
        "{:>5}  ",
        "L{} ",
        "{}. ",
        "{:04} ",
    )
    if marked:
        kind = rng.choice(("blob-code", "line", "hljs-ln-line", "code-line", "highlight", "src"))
        ways = (
            f'<td class="{kind}" data-line-number="{{}}">',
            f'<span class="{kind}" id="L{{}}">',
            f'<li class="{kind}" value="{{}}">',
            f'<div class="{kind}"><a name="l{{}}"></a>',
        )
    way = rng.choice(ways)
    tag = way[1 : way.index(" ")] if marked else ""
    places: list[Place] = []
    for number, (start, bare, _) in enumerate(source.lines, first):
        text = source.data[start:bare]
        prefix = way.format(number).encode()
        if not marked:
            places.append(((start, start, prefix),))
            continue
        escaped = html.escape(text.decode(), quote=False).encode()
        places.append(((start, bare, prefix + escaped + f"</{tag}>".encode()),))
    return places


def _kind(name: str, family: str, description: str) -> Corruption:
    return Corruption(name, "code", "crawl", family, None, False, description)


KINDS: tuple[tuple[Corruption, Finder], ...] = (
    (
        _kind("template_residue", "template", "Placeholders of a template were never filled in."),
        _find_templates,
    ),
    (
        _kind("html_wrap", "page", "Cut from a web page: numbers, tags, words of its menus."),
        _find_pages,
    ),
)
