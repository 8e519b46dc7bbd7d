"""Exit codes of all programs, one for each kind of error.

launch.sh returns these codes. Plain `accelerate launch` and `torchrun` return 1 for every failure. So the file
`status.json` of a run holds the code, too.
"""

FINISHED = 0
BUG = 1  # a bug of this program, or a lost process or machine
USAGE = 2  # a setting, a path or a combination that cannot work
RESUME_REFUSED = 3
BAD_DATA = 4
NON_FINITE = 5  # gradients or weights
DISK = 6
LOCKED = 7  # another process uses the folder
OVER_LIMIT = 8  # a score worse than allowed, an export that failed its check, or a serious finding of `diagnose`
OUT_OF_MEMORY = 9  # of a GPU, or of torch on a CPU
PREEMPTED = 75  # saved, run the same command again; EX_TEMPFAIL of sysexits.h
INTERRUPTED = 130  # Ctrl-C in a program without anything to save; the code of a shell for SIGINT
