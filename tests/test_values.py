"""Values become JSON, and JSON becomes values."""

from __future__ import annotations

import subprocess
import sys

THREADS = """
import sys, threading
from mini_core import api, types

sys.setswitchinterval(1e-6)
begin = threading.Barrier(8)

def run():
    begin.wait()
    for kind in (types.Release, types.Plan, api.StatusInfo, types.Event, types.LogLine):
        for read, data in ((types.decode, b"{}"), (types.from_data, {})):
            try:
                read(kind, data)
            except ValueError:
                pass

threads = [threading.Thread(target=run) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_may_read_their_first_values_at_once():
    """As the controller's do when it starts. The interpreter crashed, in most runs."""
    for _ in range(4):
        subprocess.run([sys.executable, "-c", THREADS], check=True)
