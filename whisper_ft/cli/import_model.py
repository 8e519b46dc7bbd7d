"""Import a model of faster-whisper or whisper.cpp, to fine-tune it: `python -m whisper_ft import MODEL --out DIR`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_ft.runtime.command import Parser, exit_code_of
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.printable import counted, say

if TYPE_CHECKING:
    from whisper_ft.models.conversion.foreign_model import ForeignModel
    from whisper_ft.models.conversion.hf_folder import ImportedFiles

PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""First bytes of the files that torch.save writes: a zip archive since torch 1.6, before that a bare pickle."""
PICKLE_ADVICE = (
    "is a pickle of torch, which may hold a program and is not read; the same model as safetensors is on the Hub "
    "(openai/whisper-...); if you trust the file, convert it with convert_openai_to_hf.py of transformers' repository"
)
EXPECTED = "expected a folder of CTranslate2 (model.bin, config.json, vocabulary.json), or a ggml file of whisper.cpp"


def main(argv: Sequence[str] | None = None) -> int:
    """Import a model, and return the exit code. `argv` is None for the arguments of this process.

    It is 2 for wrong arguments, and for a file that is damaged, of another kind, or a pickle. It is 6 for a full disk.
    """

    def program() -> None:
        args = _parser().parse_args(argv)
        _refuse_taken(args.out, args.overwrite)
        _import(_find(args.model), args.out)

    return exit_code_of(program)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m whisper_ft import",
        description="Turn a model of faster-whisper (CTranslate2) or whisper.cpp (ggml) into a Hugging Face folder, to "
        "fine-tune it. Only formats that hold no code are read.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder with model.bin, or a ggml file")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to create")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder --out if it exists")
    return parser


def _refuse_taken(out: Path, overwrite: bool) -> None:
    """Raise UsageError if --out exists, unless it may be replaced and is a model folder or empty."""
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise UsageError(f"--out {out}: is there already; name a new folder, or replace a model with --overwrite")
    if not out.is_dir() or (any(out.iterdir()) and not (out / "config.json").is_file()):
        raise UsageError(f"--out {out}: is no model, because it has no config.json, and is not replaced")


def _find(path: Path) -> Path:
    """Return the folder of CTranslate2, or the ggml file, that is meant. Raises UsageError for anything else."""
    if path.is_dir():
        return _find_in_folder(path)
    if not path.exists():
        raise UsageError(
            f"{path}: no such file or folder; {EXPECTED}. A model of the Hub is downloaded first: hf download "
            "OWNER/NAME --local-dir DIR"
        )
    from whisper_ft.models.conversion.byte_reader import reading
    from whisper_ft.models.conversion.ggml_file import is_ggml

    if is_ggml(path):
        return path
    with reading(path) as reader:
        start = reader.take(min(4, reader.size), "the file")
    if start.startswith(PICKLES) or path.suffix in (".pt", ".pth", ".ckpt"):
        raise UsageError(f"{path}: {PICKLE_ADVICE}")
    if path.name == "model.bin":
        raise UsageError(f"{path}: give its folder, which also holds the vocabulary: {path.parent}")
    raise UsageError(f"{path}: unknown kind of file; {EXPECTED}")


def _find_in_folder(folder: Path) -> Path:
    """Return the folder itself if it is one of CTranslate2, or the only ggml file in it."""
    if (folder / "model.bin").is_file():
        return folder
    files = [*folder.glob("ggml*.bin")]
    if len(files) == 1:
        return _find(files[0])
    if files:
        raise UsageError(f"{folder}: holds {len(files)} ggml files; give one of them, such as {min(files)}")
    if any(folder.glob("*.safetensors")):
        raise UsageError(f"{folder}: holds safetensors; a Hugging Face folder needs no import: give it as --model.name")
    if pickles := [*folder.glob("*.pt"), *folder.glob("pytorch_model*.bin")]:
        raise UsageError(f"{pickles[0]}: {PICKLE_ADVICE}")
    raise UsageError(f"{folder}: no model.bin in this folder; {EXPECTED}")


def _import(path: Path, out: Path) -> None:
    from whisper_ft.cli.export.export_folder import export_folder
    from whisper_ft.models.conversion.ctranslate2_model import read_ctranslate2_model
    from whisper_ft.models.conversion.ggml_model import read_ggml_model
    from whisper_ft.models.conversion.hf_folder import fill_folder, make_files
    from whisper_ft.models.whisper import quiet_libraries

    quiet_libraries()
    model = read_ctranslate2_model(path) if path.is_dir() else read_ggml_model(path)
    made = make_files(model, path / "tokenizer.json" if path.is_dir() else None)
    lines = [*_report(model, made)]
    readme = ["# Imported Whisper", "", f"Made from `{path.name}`:", "", *(f"- {line}" for line in lines), ""]
    files = {**made.files, "README.md": "\n".join(readme).encode()}
    with export_folder(out, model.bytes_written) as aside:
        fill_folder(model, files, aside)
    for line in lines:
        say(line)
    say(f"{out} can be fine-tuned: --model.name {out}")


def _report(model: "ForeignModel", made: "ImportedFiles") -> list[str]:
    """Lines about the model, the parts that its file did not state, and the losses."""
    from whisper_ft.models.conversion.openai_sizes import size_of

    weights, count = model.bytes_written // model.dtype.itemsize, len(model.architecture.shapes())
    size = size_of(model.architecture) or "a size that OpenAI has not published"
    type = str(model.dtype).removeprefix("torch.")
    first = f"{model.engine}: {size}, {weights:,} weights in {counted(count, 'tensor')}, written as {type}"
    origins = [f"{part}: {origin}" for part, origin in made.completed.items()]
    return [first, *(f"not stated by the file: {line}" for line in origins), *made.notes]


if __name__ == "__main__":
    sys.exit(main())
