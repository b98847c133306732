"""Which language is this? By file name, then by shebang, then by a small model.

Names are those of Pygments (``Python``, ``C++``, ``Bash``), so that one language has one name
whichever way it was found.
"""

import functools
import re
from typing import Any

from pygments.lexers import get_all_lexers

# What Pygments calls otherwise than people do.
_RENAMED = {
    "Text only": "Text",
    "verilog": "Verilog",
    "systemverilog": "SystemVerilog",
    "vhdl": "VHDL",
    "Rocq Prover": "Coq",
    "Lean4": "Lean",
    "Protocol Buffer": "Protocol Buffers",
    "Embedded Ragel": "Ragel",
    "Nimrod": "Nim",
    "Delphi": "Pascal",
    "S": "R",
    "Batchfile": "Batch",
    "EmacsLisp": "Emacs Lisp",
    "VimL": "Vim script",
    "Docker": "Dockerfile",
    "Perl6": "Raku",
    "Matlab": "MATLAB",
    "VB.net": "Visual Basic",
    "GAS": "Assembly",
    "NASM": "Assembly",
    "TASM": "Assembly",
}

# Extensions that several lexers claim, or none, and that nearly always mean one language.
_SETTLED = {
    "as": "ActionScript",
    "asm": "Assembly",
    "aspx": "ASP.NET",
    "ascx": "ASP.NET",
    "asax": "ASP.NET",
    "ashx": "ASP.NET",
    "asmx": "ASP.NET",
    "b": "Brainfuck",
    "c": "C",
    "cc": "C++",
    "cfg": "INI",
    "conf": "INI",
    "csv": "CSV",
    "cts": "TypeScript",
    "cu": "CUDA",
    "cuh": "CUDA",
    "feature": "Gherkin",
    "fs": "F#",
    "g": "ANTLR",
    "g4": "ANTLR",
    "gd": "GDScript",
    "hh": "C++",
    "i": "SWIG",
    "inc": "PHP",
    "inf": "INI",
    "ipynb": "Jupyter Notebook",
    "jsonl": "JSON",
    "lean": "Lean",
    "log": "Text",
    "mjs": "JavaScript",
    "cjs": "JavaScript",
    "jsx": "JavaScript",
    "mm": "Objective-C++",
    "mts": "TypeScript",
    "prolog": "Prolog",
    "r": "R",
    "rl": "Ragel",
    "s": "Assembly",
    "sc": "Scala",
    "scd": "SuperCollider",
    "sh": "Bash",
    "sql": "SQL",
    "svelte": "Svelte",
    "svg": "XML",
    "t": "Perl",
    "tex": "TeX",
    "toc": "TeX",
    "tsv": "TSV",
    "tsx": "TypeScript",
    "ttl": "Turtle",
    "txt": "Text",
    "xhtml": "HTML",
    "xsl": "XSLT",
    "xslt": "XSLT",
}
_SETTLED_NAMES = {
    "authors": "Text",
    "copying": "Text",
    "license": "Text",
    "notice": "Text",
    "readme": "Text",
    "todo.txt": "Text",
}

# One extension, several languages, told apart by what is written: the first that is found, or
# the last name, or (None) whatever the model says.
_TOLD_APART: dict[str, tuple[tuple[tuple[str, str], ...], str | None]] = {
    "h": (
        (
            ("Objective-C", r"^[ \t]*(@interface|@protocol|@class|#import)\b"),
            (
                "C++",
                r"^[ \t]*(template[ \t]*<|namespace[ \t]+[\w:]*[ \t]*\{|using[ \t]+namespace\b|"
                r"class[ \t]+\w+[^;{]{0,200}\{|(public|private|protected)[ \t]*:)|\bstd::",
            ),
        ),
        "C",
    ),
    "m": (
        (
            ("Objective-C", r"^[ \t]*(@interface|@implementation|@import|#import|#include)\b"),
            ("MATLAB", r"^[ \t]*(function\b|%|classdef\b|clear\b|end\b)"),
        ),
        None,
    ),
    "pl": ((("Prolog", r"^[ \t]*:-|^[a-z]\w*\([^)\n]*\)[ \t]*(:-|\.[ \t]*$)"),), "Perl"),
    "pm": ((("Raku", r"^[ \t]*(use[ \t]+v6|unit[ \t]+module|grammar[ \t])"),), "Perl"),
    "v": (
        (
            ("Coq", r"^[ \t]*(Require|Theorem|Lemma|Definition|Proof|Inductive|Fixpoint)\b"),
            ("Verilog", r"^[ \t]*(`\w+|module[ \t]+\w+|endmodule)"),
        ),
        "Verilog",
    ),
}

_SHEBANG = re.compile(r"#!\s*(\S+)(?:[ \t]+(?:-\S+[ \t]+|\w+=\S*[ \t]+)*(\S+))?")
_INTERPRETERS = {
    "sh": "Bash",
    "dash": "Bash",
    "ash": "Bash",
    "bash": "Bash",
    "ksh": "Bash",
    "zsh": "Bash",
    "node": "JavaScript",
    "nodejs": "JavaScript",
    "deno": "TypeScript",
    "bun": "JavaScript",
    "ts-node": "TypeScript",
    "python": "Python",
    "pypy": "Python",
    "rscript": "R",
    "raku": "Raku",
    "wish": "Tcl",
    "tclsh": "Tcl",
    "expect": "Tcl",
    "gawk": "Awk",
    "mawk": "Awk",
    "runhaskell": "Haskell",
    "make": "Makefile",
    "escript": "Erlang",
    "osascript": "AppleScript",
}

# Labels of the model that are no alias of a lexer. What is not here is no language.
_MODEL_LABELS = {
    "txt": "Text",
    "cs": "C#",
    "csv": "CSV",
    "tsv": "TSV",
    "shell": "Bash",
    "vba": "Visual Basic",
    "jsonl": "JSON",
    "ipynb": "Jupyter Notebook",
    "svg": "XML",
    "rdf": "XML",
    "csproj": "XML",
    "vcxproj": "XML",
    "appleplist": "XML",
    "gradle": "Groovy",
    "gemfile": "Ruby",
    "gemspec": "Ruby",
    "textproto": "Protocol Buffers",
    "asm": "Assembly",
    "m4": "M4",
    "sgml": "SGML",
    "htaccess": "ApacheConf",
    "latex": "TeX",
    "gitmodules": "INI",
    "aidl": "AIDL",
    "asp": "ASP.NET",
    "srt": "Text",
    "sum": "Text",
    "ignorefile": "Text",
    "gitattributes": "Text",
}


def detect_language(path: str, text: str) -> str | None:
    """Names the language of a text, the same one every time.

    Args:
        path: The file's path; only its last component counts.
        text: The content, for names that say nothing or too little.

    Returns:
        A name like ``Python``, or None when nothing fits.
    """
    name = path[path.rfind("/") + 1 :].lower()
    extensions, names, patterns = _names()
    extension = name[name.rfind(".") + 1 :] if "." in name else ""
    found = names.get(name) or extensions.get(extension)
    if found is not None:
        return found
    if extension in _TOLD_APART:
        return _tell_apart(extension, text)
    if text.startswith("#!"):
        found = _by_shebang(text)
        if found is not None:
            return found
    for pattern, language in patterns:
        if pattern.fullmatch(name):
            return language
    return _by_model(text)


def _human(name: str) -> str:
    if name.startswith("ANTLR With "):
        return "ANTLR"
    if name.startswith("Ragel in "):
        return "Ragel"
    return _RENAMED.get(name, name)


@functools.cache
def _names() -> tuple[dict[str, str], dict[str, str], tuple[tuple[re.Pattern[str], str], ...]]:
    """Languages by extension, by whole file name, and by the few patterns that are neither."""
    claims: dict[str, set[str]] = {}
    names: dict[str, str] = {}
    patterns: list[tuple[re.Pattern[str], str]] = []
    for lexer, _, globs, _ in get_all_lexers(plugins=False):
        for glob in globs:
            lowered = glob.lower()
            if re.fullmatch(r"\*\.[^.*?\[]+", lowered):
                claims.setdefault(lowered[2:], set()).add(_human(lexer))
            elif re.fullmatch(r"[^*?\[]+", lowered):
                names.setdefault(lowered, _human(lexer))
            elif not lowered.startswith("*config") and lowered != "*.[1-9]":
                expression = re.escape(lowered).replace(r"\*", ".*").replace(r"\?", ".")
                expression = expression.replace(r"\[", "[").replace(r"\]", "]")
                patterns.append((re.compile(expression, re.DOTALL), _human(lexer)))
    extensions = {
        extension: next(iter(languages))
        for extension, languages in claims.items()
        if len(languages) == 1 and extension not in _TOLD_APART
    }
    return extensions | _SETTLED, names | _SETTLED_NAMES, tuple(patterns)


def _tell_apart(extension: str, text: str) -> str | None:
    rules, otherwise = _TOLD_APART[extension]
    head = text[:65536]
    for language, expression in rules:
        if re.search(expression, head, re.MULTILINE):
            return language
    return otherwise or _by_model(text)


def _by_shebang(text: str) -> str | None:
    match = _SHEBANG.match(text[:256])
    if match is None:
        return None
    program = match[1].rpartition("/")[2]
    if program == "env" and match[2]:
        program = match[2].rpartition("/")[2]
    program = re.sub(r"[\d.]+$", "", program).lower()
    return _INTERPRETERS.get(program) or _aliases().get(program)


@functools.cache
def _aliases() -> dict[str, str]:
    aliases: dict[str, str] = {}
    for lexer, short_names, _, _ in get_all_lexers(plugins=False):
        for alias in short_names:
            aliases.setdefault(alias.lower(), _human(lexer))
    return aliases


@functools.cache
def _model() -> Any:
    from magika import Magika

    return Magika()


def _by_model(text: str) -> str | None:
    """Magika's answer (Fratantonio et al., "Magika: AI-Powered Content-Type Detection")."""
    if not text.strip():
        return None
    label = str(_model().identify_bytes(text.encode()).output.label)
    return _MODEL_LABELS.get(label) or _aliases().get(label)
