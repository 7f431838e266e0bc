"""Free memory, and sizes that are checked against it."""

import resource
import subprocess
import sys
import threading
import time

import pytest

from dltoolkit import memory
from dltoolkit.errors import UserError


def test_free_memory_is_plausible():
    assert memory.GIGABYTE <= memory.limit() < 2**45
    assert memory.available() > 2**26


def test_free_memory_respects_a_limit_of_the_process():
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))\n"
    code += "from dltoolkit import memory; print(memory.available() < 2**32)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY or memory.available() > 0


def test_refuse_names_size_and_remedy():
    memory.refuse(1000, "The images of a.npz", "use fewer")
    with pytest.raises(UserError, match=r"^The images of a.npz take 90 TiB of memory, more than half .*: use fewer\.$"):
        memory.refuse(90 * 2**40, "The images of a.npz", "use fewer")


def test_threads_share_a_budget():
    budget, used, most = memory.Budget(100), [0], [0]
    lock = threading.Lock()

    def work(size):
        with budget.take(size):
            with lock:
                used[0] += min(size, 100)
                most[0] = max(most[0], used[0])
            time.sleep(0.002)
            with lock:
                used[0] -= min(size, 100)

    threads = [threading.Thread(target=work, args=(size,)) for size in (40, 70, 40, 500, 10, 30, 100, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    assert 0 < most[0] <= 100
