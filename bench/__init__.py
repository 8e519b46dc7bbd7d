"""Speed benchmark: `python -m bench --out bench/results.json`; docs/performance.md explains the method.

A contender is one of the programs that are compared: a module that runs in its own process. It gets its task as one
JSON argument and prints its result as one JSON line.
"""
