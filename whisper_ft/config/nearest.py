"""Nearest name: the setting that a user probably means by an unknown name."""

import difflib
from collections.abc import Sequence

from whisper_ft.config.trainer_names import TRAINER_NAMES

OTHER_NAMES = {name: other.ours for name, other in TRAINER_NAMES.items() if other.ours}
"""Names of the same settings in the Trainer of transformers and in its examples."""
OTHER_SECTIONS = (("eval.", "decoding."), ("run_dir", "out"), ("model.name", "model"))
"""Settings of train.py and their names in other programs of this project, by how the names begin."""
CLOSE_ENOUGH = 0.5
"""Least similarity of whole names, from 0 to 1."""
PARTS_CLOSE_ENOUGH = 0.8
"""Least similarity of last parts, from 0 to 1. It is higher, because a short part resembles many others."""

FEWEST_LETTERS = 4
"""Fewest letters that stand for a name that begins with them. With fewer, many names begin alike."""


def answer_to(key: str, names: Sequence[str]) -> str:
    """Return the end of a message about an unknown setting: the nearest name, or the way without a setting."""
    elsewhere = TRAINER_NAMES.get(last_part(key))
    if elsewhere and elsewhere.ours is None:
        return f", which is no setting here: {elsewhere.note} (docs/from-trainer.md)"
    near = nearest(key, names)
    if near is None:
        return "; --help all lists all settings"
    note = f": {elsewhere.note}" if elsewhere and elsewhere.note else ""
    return f"; did you mean {near!r}?" + (f" (docs/from-trainer.md{note})" if elsewhere else "")


def last_part(key: str) -> str:
    """Return the last part of a dotted name as settings are spelt: `train.Learning-Rate` is `learning_rate`."""
    return key.rsplit(".", 1)[-1].replace("-", "_").lower()


def nearest(key: str, names: Sequence[str]) -> str | None:
    """Return the name that is nearest to an unknown one: by its last part, by its name elsewhere, or by its letters.

    Letters with which a last part begins stand for it: `lang` for `language`.

    Returns None if no name is close enough.
    """
    last = last_part(key)
    if "." not in key and OTHER_NAMES.get(last) in names:
        return OTHER_NAMES[last]  # batch_size is batch.size, though eval.batch_size ends so
    by_part: dict[str, list[str]] = {}
    for name in names:
        by_part.setdefault(name.rsplit(".", 1)[-1], []).append(name)
    for other, name in OTHER_NAMES.items():
        if other not in by_part and (here := _name_here(name, names)):
            by_part[other] = [here]
    begun = [part for part in by_part if len(last) >= FEWEST_LETTERS and part.startswith(last)]
    last = min(begun, key=len, default=last)
    if last not in by_part:
        whole = difflib.get_close_matches(key, names, n=1, cutoff=CLOSE_ENOUGH)
        parts = difflib.get_close_matches(last, by_part, n=1, cutoff=PARTS_CLOSE_ENOUGH)
        if whole and not (parts and "." not in key):
            return whole[0]
        if not parts:
            return None
        last = parts[0]
    return difflib.get_close_matches(key, by_part[last], n=1, cutoff=0.0)[0]


def _name_here(name: str, names: Sequence[str]) -> str | None:
    """Return the name of a setting of train.py among those of another program, None if it has no such setting."""
    moved = (own + name.removeprefix(theirs) for theirs, own in OTHER_SECTIONS if name.startswith(theirs))
    return next((each for each in (name, *moved) if each in names), None)
