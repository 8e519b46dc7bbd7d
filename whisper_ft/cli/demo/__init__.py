"""A small made-up world to try everything in: spoken sentences, and a Whisper small enough to learn them on a laptop.

`python -m whisper_ft demo --out demo-data` makes both; neither needs a network, a GPU or root.
"""
