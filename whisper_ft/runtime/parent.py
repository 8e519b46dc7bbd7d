"""Tie between a launcher and the programs it starts: they end when it is killed. Without torch."""

import os
import signal
import sys

import psutil  # type: ignore[import-untyped]

LAUNCHER = "WHISPER_FT_LAUNCHER"  # environment variable: process id of the launcher that started a program
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this program when its launcher is gone; call it at the start of a program.

    A killed launcher cannot pass a signal on, so its programs would train on without anybody knowing. Does nothing in
    a program that no launcher started.
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
