"""Memory that was used stays with the process."""

import platform
import subprocess
import sys

import pytest

REUSED = """
import resource, sys
if sys.argv[1] == "kept":
    from whisper_ft.runtime.malloc import keep_freed_memory
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
len(b"x" * 80_000_000)
before = faults()
len(b"x" * 80_000_000)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told to keep memory")
def test_a_block_that_was_freed_costs_no_page_faults_when_it_is_needed_again():
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", REUSED, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("kept") < 100
    assert faults("as it comes") > 10_000  # of 19,532 pages, or this test would show nothing
