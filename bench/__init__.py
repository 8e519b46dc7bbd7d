"""Speed benchmark: `python -m bench --out bench/results.json`; docs/performance.md explains the method.

A contender is a module with a process of its own. It gets its task as one JSON argument and prints one JSON line.
"""
