"""Demo: a synthetic corpus of spoken sentences, and a Whisper small enough to learn them on a laptop.

`python -m whisper_ft demo --out demo-data` makes both, without a network, a GPU or root.
"""
