"""Check of the project's English: the first word of docstrings and the length of sentences.

    python -m tests.prose                      # everything
    python -m tests.prose whisper_ft/data docs # some files and folders

Docstrings, comments and Markdown pages are checked. A sentence has at most 30 words; inline code is one word. Items of
lists and cells of tables are counted one by one; blocks of code are not read. There is no way to make an exception.
"""

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = (
    "*.py",
    "*.md",
    "*.sh",
    "Makefile",
    "*.toml",
    ".ci",
    "configs",
    "slurm",
    "whisper_ft",
    "tests",
    "bench",
    "docs",
)
SUFFIXES = {".py", ".md", ".sh", ".yaml", ".sbatch", ".toml", ""}  # none: Makefile and .ci/run
MAX_WORDS = 30  # words of a sentence, the limit of CONTRIBUTING.md
REFUSED_STARTS = {"what", "whether", "where", "that", "of", "those"}  # a docstring names its thing first

LIST_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s")
NAMED_ITEM = re.compile(r"\s+[\w.*]+(?:, [\w.*]+)*:(?:\s|$)")  # `    seconds: duration of the clip`, below a docstring
INLINE_CODE = re.compile(r"(`+)(?!`).+?\1")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
SENTENCE_END = re.compile(r"(?<=[.!?])[)\"'”»*_]*\s+")
ABBREVIATION = re.compile(r"\b(e\.g|i\.e|cf|vs|etc|approx|no)\.(?=\s+[a-z\d(`])", re.IGNORECASE)

Line = tuple[int, str]  # number from 1, text


@dataclass(frozen=True)
class Finding:
    """A violation of the rules, at a line of a file."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def words_in(sentence: str) -> int:
    """Number of words: runs of non-space with a letter or digit in them."""
    return sum(any(letter.isalnum() for letter in word) for word in sentence.split())


def sentences_in(text: str) -> list[str]:
    """Sentences of a paragraph, with inline code and links replaced by one word and their text."""
    plain = LINK.sub(r"\1", INLINE_CODE.sub("CODE", " ".join(text.split())))
    plain = ABBREVIATION.sub(lambda match: match[1].replace(".", ""), plain)
    return [sentence for sentence in SENTENCE_END.split(plain) if sentence]


def paragraphs_in(lines: Iterable[Line]) -> Iterator[Line]:
    """Paragraphs, list items and table cells of a text, each with the number of its first line.

    A block that is indented by four or more after an empty line is code, unless it belongs to a list.
    """
    start, paragraph, indent, is_list, after_blank, code_indent = 0, [], 0, False, True, None

    def flushed() -> Iterator[Line]:
        if paragraph:
            yield start, " ".join(paragraph)
            paragraph.clear()

    for number, line in lines:
        stripped = line.strip()
        now = len(line) - len(line.lstrip())
        if not stripped:
            yield from flushed()
            after_blank = True
            continue
        if code_indent is not None and now >= code_indent:
            continue
        code_indent = None
        is_item = bool(LIST_ITEM.match(line))
        if now == 0 and after_blank and not is_item:
            is_list = False
        if after_blank and now >= 4 and not is_list and not is_item:
            code_indent = now
            continue
        if stripped.startswith("|"):
            yield from flushed()
            yield from ((number, cell) for cell in re.split(r"(?<!\\)\|", stripped) if cell.strip())
            after_blank = False
            continue
        if is_item or stripped.startswith("#") or NAMED_ITEM.match(line) or now < indent:
            yield from flushed()
        if not paragraph:
            start, indent = number, now
        is_list = is_list or is_item
        paragraph.append(stripped)
        after_blank = False
        if stripped.startswith("#"):
            yield from flushed()
    yield from flushed()


def too_long(path: Path, lines: Iterable[Line]) -> Iterator[Finding]:
    """Sentences of more than MAX_WORDS words."""
    for number, paragraph in paragraphs_in(lines):
        for sentence in sentences_in(paragraph):
            if (count := words_in(sentence)) > MAX_WORDS:
                yield Finding(path, number, f"{count} words in a sentence, at most {MAX_WORDS}: {sentence}")


def docstrings_in(source: str) -> Iterator[list[Line]]:
    """Lines of every string that stands alone: docstrings of modules, classes, functions and attributes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            first, *rest = node.value.value.splitlines() or [""]
            yield list(enumerate([first, *(line[node.col_offset :] for line in rest)], node.lineno))


def comments_in(source: str) -> Iterator[list[Line]]:
    """Comments of Python: neighbouring lines together, those behind code one by one."""
    block: list[Line] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line = (token.start[0], token.string[1:].removeprefix(" "))
        is_alone = token.line[: token.start[1]].strip() == ""
        if block and (not is_alone or line[0] != block[-1][0] + 1):
            yield block
            block = []
        if is_alone:
            block.append(line)
        else:
            yield [line]
    if block:
        yield block


def comments_of_script(source: str) -> Iterator[list[Line]]:
    """Comments of shell, YAML, TOML and make: whole lines together, those behind two spaces one by one."""
    block: list[Line] = []
    for number, line in enumerate(source.splitlines(), 1):
        if line.lstrip().startswith("#"):
            block.append((number, line.lstrip()[1:].removeprefix(" ")))
            continue
        if block:
            yield block
            block = []
        if behind := re.search(r"  # (.*)", line):
            yield [(number, behind[1])]
    if block:
        yield block


def text_of_page(source: str) -> Iterator[Line]:
    """Lines of a Markdown page without blocks of code and HTML comments; what is left out becomes empty lines."""
    without = re.sub(r"<!--.*?-->", lambda match: "\n" * match[0].count("\n"), source, flags=re.DOTALL)
    fence = ""
    for number, line in enumerate(without.splitlines(), 1):
        opened = re.match(r"\s*(`{3,}|~{3,})", line)
        if fence:
            fence = "" if line.strip() == fence else fence
            yield number, ""
        elif opened:
            fence = opened[1]
            yield number, ""
        else:
            yield number, re.sub(r"^(\s*)>\s?", r"\1", line)


def check_text(path: Path, source: str) -> Iterator[Finding]:
    """Findings in the source of one file; its suffix says what is read."""
    if path.suffix == ".md":
        yield from too_long(path, text_of_page(source))
    elif path.suffix == ".py":
        for lines in docstrings_in(source):
            first = next(iter(re.findall(r"\w+", " ".join(line for _, line in lines))), "")
            if first.lower() in REFUSED_STARTS:
                yield Finding(path, lines[0][0], f"a docstring starts with {first!r}: name the thing first")
            yield from too_long(path, lines)
        for lines in comments_in(source):
            yield from too_long(path, lines)
    else:
        for lines in comments_of_script(source):
            yield from too_long(path, lines)


def files_below(places: Iterable[Path]) -> list[Path]:
    """The given files, and those of a known kind in the given folders, sorted."""
    return sorted(
        path
        for place in places
        for path in (place.rglob("*") if place.is_dir() else [place])
        if path.is_file() and path.suffix in SUFFIXES
    )


def main(names: list[str]) -> int:
    """Print the findings and their number by folder; 1 if there are any."""
    places = [Path(name).resolve() for name in names] or [path for name in PLACES for path in ROOT.glob(name)]
    findings = [
        finding
        for path in files_below(places)
        for finding in check_text(path.relative_to(ROOT), path.read_text(encoding="utf-8"))
    ]
    print(*findings, sep="\n", end="\n" if findings else "")
    folders = Counter("/".join(finding.path.parts[:2][: len(finding.path.parts) - 1]) or "." for finding in findings)
    for folder, count in sorted(folders.items()):
        print(f"{count:5} {folder}", file=sys.stderr)
    print(f"{len(findings):5} findings in all", file=sys.stderr)
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
