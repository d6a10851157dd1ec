import itertools
import signal
import threading

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
for number in itertools.count(1):
    print(f"job {number} done", flush=True)
    if stop.wait(5):
        print("worker stopped", flush=True)
        break
