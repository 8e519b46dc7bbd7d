"""Link from a program to its launcher: the program ends when the launcher is killed. torch is not imported."""

import os
import signal
import sys

import psutil  # type: ignore[import-untyped]

LAUNCHER = "WHISPER_FT_LAUNCHER"  # environment variable: process id of the launcher that started a program
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def end_with_parent() -> None:
    """Ask the kernel to send SIGTERM to this program when its launcher ends. Call this at the start of a program.

    A killed launcher cannot pass a signal on, so its programs would continue unnoticed. If the launcher has ended
    already, this program ends at once. In a program that no launcher started, nothing is done.
    """
    launcher = int(os.environ.pop(LAUNCHER, "0"))  # removed, because programs started by this one have another parent
    if not launcher:
        return
    if sys.platform.startswith("linux") and os.getppid() == launcher:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != launcher and not _is_running(launcher):  # the launcher ended before prctl was called
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def _is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
