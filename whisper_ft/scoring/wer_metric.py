"""Metric of the library `evaluate` for the WER and CER of a whole set. Errors are counted by `edit_distance`.

`evaluate.load("wer")` is not used because it runs code fetched from the Hub.
"""

from collections.abc import Sequence
from typing import Any

import datasets

from whisper_ft.runtime.installed_package import evaluate
from whisper_ft.scoring.edit_distance import count_errors, total
from whisper_ft.scoring.unicode_text import without_optional_spaces


class WerMetric(evaluate.Metric):  # type: ignore[misc]  # the library is untyped
    """WER and CER of a whole set. Texts are compared as given; words are separated by whitespace.

    `compute` returns a dictionary:
      wer, cer: the rates as fractions, None if no reference has a word
      words, characters: the `ErrorCount` of the whole set
      utterances: (words, characters) of each utterance, in the order given

    Utterances with an empty reference are left out of both rates and of the counts of the set. With
    `count_spaces=False`, spaces of scripts without word spaces do not count as characters.
    """

    def _info(self) -> Any:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="Word and character error rate over a whole test set",
            citation="",
            inputs_description="predictions and references: lists of texts, one per utterance",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _build_data_dir(self) -> str:
        # The library makes a folder under HF_HOME even if nothing is written to it. With a read-only home that would
        # end an evaluation after all its work.
        return str(super()._build_data_dir()) if not self.keep_in_memory else ""

    def _compute(
        self, predictions: Sequence[str], references: Sequence[str], count_spaces: bool = True
    ) -> dict[str, Any]:
        def characters_of(text: str) -> str:
            return text if count_spaces else without_optional_spaces(text)

        utterances = [
            (count_errors(ref.split(), hyp.split()), count_errors(characters_of(ref), characters_of(hyp)))
            for hyp, ref in zip(predictions, references, strict=True)
        ]
        scored = [pair for pair, ref in zip(utterances, references, strict=True) if ref.strip()]
        words = total(pair[0] for pair in scored)
        characters = total(pair[1] for pair in scored)
        return {
            "wer": words.rate,
            "cer": characters.rate,
            "words": words,
            "characters": characters,
            "utterances": utterances,
        }


def wer_metric() -> WerMetric:
    """Return a new metric that keeps its texts in memory, because its files would be shared by all processes."""
    return WerMetric(keep_in_memory=True)
