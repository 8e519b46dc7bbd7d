"""Speed as ratios of one session: `python -m bench --out bench/results.json`; see docs/performance.md.

Each contender is a module that runs in its own process, takes its task as one JSON argument and prints one JSON line.
"""
