"""Side files of a model folder: vocabulary and feature extractor in files of their own, as transformers 4 wrote them.

transformers 5 writes tokenizer.json and processor_config.json in their place. Other engines still read the old files:
whisper.cpp's converter the vocabulary, and faster-whisper and transformers.js preprocessor_config.json. faster-whisper
computes 80 mel bins if that file is missing, and large-v3 takes 128.
"""

import json
from pathlib import Path

from transformers import WhisperProcessor

VOCABULARY, MERGES, ADDED_TOKENS, PREPROCESSOR = (
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "preprocessor_config.json",
)
SIDE_FILES = (VOCABULARY, MERGES, ADDED_TOKENS, PREPROCESSOR)


def write_side_files(folder: Path, processor: WhisperProcessor) -> None:
    """Write the files in SIDE_FILES into a folder. Their content is that of the files of OpenAI's models on the Hub.

    vocab.json and merges.txt hold the byte pairs, added_tokens.json the special tokens and timestamps by their text.
    """
    tokenizer = processor.tokenizer.backend_tokenizer
    tokenizer.model.save(str(folder))
    added = {token.content: number for number, token in sorted(tokenizer.get_added_tokens_decoder().items())}
    (folder / ADDED_TOKENS).write_text(json.dumps(added, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    processor.feature_extractor.save_pretrained(folder)
