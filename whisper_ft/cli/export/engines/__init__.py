"""Engines: one module each, with `transcribe(job)`, run in a process of its own.

The modules import the packages of the engines, so nothing else imports them.
"""
