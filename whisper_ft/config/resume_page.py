"""The page docs/resume.md, made from the settings: `python -m whisper_ft.config.resume_page > docs/resume.md`."""

import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from whisper_ft.config.help import meanings_of
from whisper_ft.config.resume_policy import SECTIONS_OF_LISTS, rules
from whisper_ft.config.training import TrainingConfig
from whisper_ft.runtime.command import exit_code_of

PAGE = """# What a resumed run may change

Made from the settings in `whisper_ft/config/` by `python -m whisper_ft.config.resume_page > docs/resume.md`. A test
fails when page and settings differ, or when a setting has no rule.

The same command continues from the newest complete checkpoint in its `run_dir`. Each setting given now is compared with
the value in that checkpoint:

- **exact**: must be equal. Another value is another run, so it is refused (exit code 2) and needs another `run_dir`.
- **change**: may change if it is named: `--allow_change '[optim.lr, steps]'`. Otherwise it is refused with that hint.
  The run prints `was x, is y`. Later checkpoints record the new value.
- **free**: may change at any time, because it does not alter the trained weights.

A setting that is newer than the checkpoint keeps the value that runs had before it existed, unless you give another
one. `auto` (for `data.lanes`: none) is resolved when a run begins and recorded; on resume it means the recorded value.

Two more things are compared. The data: other data is refused, and the message names the difference (next section). The
protocol of evaluation: evaluation set, normaliser, metric, decoding and precision. If it changed, the run continues,
and the best model is chosen anew, with a message. If that of a set of `eval.sets` changed, a message says that its
earlier figures cannot be compared, and the best model stays.

A run with an adapter also compares the sha256 of its base's weights, because `model.name` may name other weights than
before. Another base is refused (exit code 3).

The number of processes may change: batches and learning rate stay equal, the last bits do not. If `optim.name`
changes, the new optimizer starts without moments. If `precision` becomes fp16, its loss scale starts at
`scaler.initial`.

## Comparison of the data of the data

Not every byte is read again. Each start reads the following, and a checkpoint records it:

- **The index.** Of a list, every line. Of parquet files and saved datasets: names, and rows and bytes of each row
  group. Of tars: names, numbers of samples and their bytes. Of the Hub, also the commit.
- **Sizes** of local data: of every audio file in a list, also if it is missing, of every file in a tar, and of every
  parquet or arrow file.
- **A sample of bytes** of local data. 256 files of a list, evenly spread, give 4 kB each from their beginning, middle
  and end. 256 samples of tars give the same of their audio and of their transcript. Parquet and arrow files give 256
  such pieces in all, or at least three of a file. A smaller set gives all of its files.
- **ETags** of remote data, if the server has them, and while the addresses stay the same. They are read of every
  parquet, arrow and tar file, and of 256 audio files of a list together with their sizes.

So swapped audio is refused if its size differs or it is in the sample, and so are other transcripts in a tar. Files
outside the sample are not told apart if their sizes are equal. A copy of the data elsewhere is the same data.

All this took 0.6 s for 100,000 local audio files whose directory was in memory; opening their list took 1.8 s. A
checkpoint of an earlier version has the index alone, so only the index is compared; the next checkpoint has the rest.

## Settings

| setting | rule | default | meaning |
|---|---|---|---|
"""


def page() -> str:
    """Return the text of docs/resume.md."""
    rows = [*_rows(TrainingConfig, "")]
    for prefix, section in SECTIONS_OF_LISTS.items():
        rows += _rows(section, f"{prefix}N.")
    return PAGE + "".join(f"| `{name}` | {rule} | {default} | {meaning} |\n" for name, rule, default, meaning in rows)


def _rows(cls: Any, prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, rule, default and meaning of each setting, in the order of the configuration."""
    meanings = meanings_of(cls)
    hints = get_type_hints(cls)
    for leaf in fields(cls):
        if is_dataclass(hints[leaf.name]):
            yield from _rows(hints[leaf.name], f"{prefix}{leaf.name}.")
        else:
            default = leaf.default_factory() if callable(leaf.default_factory) else leaf.default
            shown = "none" if default is None or default == "" else f"`{default}`"
            meaning = meanings[leaf.name].replace("|", "\\|")
            yield f"{prefix}{leaf.name}", rules()[f"{prefix}{leaf.name}".replace(".N.", ".")], shown, meaning


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: print(page(), end="")))
