"""What a person sees of a run, and what is written down of it: the screen, the files, the trackers of other makers.

All of it is best effort: a full log disk, a closed terminal or a service that is down is counted and said once, and
never stops a training.
"""
