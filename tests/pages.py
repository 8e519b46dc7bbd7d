"""The pages of this repository: their blocks of code, the output of these, and a clone in which they can be run.

A comment just above a block tells the tests about it, and readers of the source see it:

    <!-- not run: needs a GPU -->        why the block cannot be run on a CPU machine without a network
    <!-- exits: 8 -->                    the exit code that it ends with, where it is not 0
    <!-- first: cp a b -->               a command that has to be run before it, and that no reader needs
    <!-- not output: an excerpt -->      a block of `text` that is not what the commands above it print
"""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from tests.conftest import ROOT, environment, parent, starts_quickly
from tests.starts import Ended

SHELL, PYTHON, QUOTED, SETTINGS, SHOWN = "bash", "python", "text", "yaml", ("json", "toml", "diff", "markdown")
LAUNCHER = "./launch.sh"
SECONDS = 600  # a block that takes longer hangs
MARK = re.compile(r"<!--\s*(not run|exits|first|not output):\s*(\S.*?)\s*-->", re.DOTALL)
FENCE = re.compile(r"(?P<indent> *)(?P<ticks>`{3,})(?P<language>\S*)")
IN_SHELL = re.compile(r"[|&;<>$`*?\\(){}\[\]~#=!\"]")  # outside of single quotes: more than a program and arguments


@dataclass(frozen=True)
class Block:
    """A block of code with what its page says of it."""

    page: str
    line: int  # of the fence, from 1
    language: str
    text: str
    section: int  # number of the heading that it stands under
    marks: tuple[tuple[str, str], ...] = ()

    def says(self, mark: str) -> str | None:
        """The text of a mark above the block; None without one."""
        return next((text for name, text in self.marks if name == mark), None)

    @property
    def name(self) -> str:
        """For people: page and line."""
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        """True where there is something to run, and no reason not to."""
        return self.language in (SHELL, PYTHON) and self.says("not run") is None


def blocks_of(page: str, source: str) -> list[Block]:
    """The blocks of a page in Markdown, in order."""
    blocks, section, above, lines = [], 0, "", enumerate(source.splitlines(), 1)
    for number, line in lines:
        opened = FENCE.fullmatch(line.rstrip())
        if opened:
            inside = []
            for _, inner in lines:
                if inner.strip() == opened["ticks"]:
                    break
                inside.append(inner.removeprefix(opened["indent"]))
            else:
                raise ValueError(f"{page}:{number}: the block has no end")
            marks = tuple((name, " ".join(text.split())) for name, text in MARK.findall(above))
            blocks.append(Block(page, number, opened["language"], "\n".join(inside) + "\n", section, marks))
        section += line.startswith("#")
        # A comment belongs to the next block if only comments and empty lines lie between.
        is_comment = line.startswith("<!--") or ("<!--" in above and "-->" not in above.rpartition("<!--")[2])
        above = f"{above}\n{line}" if is_comment or not line.strip() else ""
    return blocks


def blocks_in(page: str) -> list[Block]:
    """The blocks of a page of this repository."""
    return blocks_of(page, (ROOT / page).read_text(encoding="utf-8"))


def commands_of(block: Block) -> list[str]:
    """The commands of a block of shell, one a line; a line that ends in a backslash goes on in the next."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and not line.lstrip().startswith("#")]


def run_block(block: Block, clone: Path) -> Ended:
    """Run a block unchanged, after the commands that its page hides from readers."""
    for name, command in block.marks:
        if name == "first":
            prepared = shell(command, clone)
            assert prepared.code == 0, f"{block.name}, first: {command}\n{prepared.out}\n{prepared.err}"
    if block.language == PYTHON:
        place = clone / "a-block-of-the-page.py"
        place.write_text(with_claims_checked(block.text), encoding="utf-8")
        return run_all([[".venv/bin/python", place.name]], clone) or shell(f".venv/bin/python {place.name}", clone)
    plain = [words for command in commands_of(block) if (words := plain_words(command, launcher=True))]
    ended = run_all(plain, clone) if len(plain) == len(commands_of(block)) else None
    return ended or shell(f"set -euo pipefail\n{block.text}", clone)


def shell(script: str, clone: Path) -> Ended:
    """Run a script in the folder of a clone."""
    done = subprocess.run(
        ["bash", "-c", script], cwd=clone, env=environment(1), capture_output=True, text=True, timeout=SECONDS
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def plain_words(command: str, *, launcher: bool = False) -> list[str] | None:
    """The words of a command that starts a program of ours in Python, or `launcher`, and needs no shell."""
    command = re.sub(r"\s#\s.*", "", command)
    words = shlex.split(command) if not IN_SHELL.search(re.sub(r"'[^']*'", "", command)) else []
    is_ours = re.match(r"\.venv/bin/python (-m whisper_ft |\w+\.py)", " ".join(words))
    return words if is_ours or (launcher and words[:1] == [LAUNCHER]) else None


def run_all(commands: list[list[str]], clone: Path) -> Ended | None:
    """Run forked programs in turn, until one fails; None where each start is to be fresh."""
    if not starts_quickly():
        return None
    code, out, err = 0, "", ""
    for words in commands:
        program, arguments = words[1], words[2:]
        if program == "-m":
            program, arguments = "whisper_ft/__main__.py", arguments[1:]
        if words[0] == LAUNCHER:
            program, arguments = "whisper_ft/cli/launch.py", words[1:]
        ended = parent().run(str(clone / program), arguments, clone, SECONDS, PYTHONPATH=str(clone))
        code, out, err = ended.code, out + ended.out, err + ended.err
        if code:
            break
    return Ended(code, out, err)


def with_claims_checked(source: str) -> str:
    """Python in which each `expression  # literal` has become an assertion that both are equal."""
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    tree = ast.parse(source)
    for place, node in enumerate(tree.body):
        if isinstance(node, ast.Expr) and (claim := _literal(comments.get(node.end_lineno or 0, ""))):
            equal = ast.Compare(node.value, [ast.Eq()], [claim])
            tree.body[place] = ast.Assert(equal, ast.Constant(f"{ast.unparse(node)} is not {ast.unparse(claim)}"))
    return ast.unparse(ast.fix_missing_locations(tree))


def _literal(text: str) -> ast.expr | None:
    try:
        ast.literal_eval(text)
        return ast.parse(text, mode="eval").body
    except (ValueError, SyntaxError):
        return None  # words for the reader


def forms(text: str) -> list[str]:
    """The words of a text without the things that differ between runs: numbers, widths of columns, ends of lines."""
    without_numbers = re.sub(r"\d[\d,.:TZ-]*", "0", text)
    return re.sub(r"[\u2500-\u259f]+", " ", without_numbers).split()


def not_printed(quoted: str, printed: str) -> Iterator[str]:
    """The first line of each passage of a quotation that was not printed after the passages before it.

    A line of `...` separates passages, because anything may have been left out there.
    """
    words, at = forms(printed), 0
    for passage in re.split(r"^\s*(?:\.{3}|…)\s*$", quoted, flags=re.MULTILINE):
        wanted = forms(passage)
        places = range(at, len(words) - len(wanted) + 1)
        match = next((place for place in places if all(map(is_of_form, words[place:], wanted))), None)
        if match is None:
            yield passage.strip().splitlines()[0]
        else:
            at = match + len(wanted)


def is_of_form(word: str, wanted: str) -> bool:
    """True for the wanted word, and for one that a narrow column cut: `utteranc…`."""
    return word == wanted or (word.endswith("…") and wanted.startswith(word[:-1]))


def cloned(folder: Path) -> Path:
    """A copy of all files that git tracks or would track, with the environment of these tests."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    if (ROOT / ".venv/installed").exists():
        (folder / ".venv").symlink_to(ROOT / ".venv")
        for name in ("requirements.txt", "Makefile"):
            os.utime(folder / name, (0, 0))  # older than the mark, so that nothing is installed into ROOT/.venv
    else:
        (folder / ".venv").symlink_to(sys.prefix)  # without the mark of `make setup`, which would make its own
    return folder
