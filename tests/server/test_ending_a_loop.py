"""How a waitress server's loop is ended, while its own threads pull the same trigger."""

from __future__ import annotations

import os
import socket
import threading

import pytest
from waitress import create_server

from mini_core.server.channel import end_loop


def test_a_loop_that_is_awake_already_does_not_close_the_trigger_that_is_about_to_be_pulled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = create_server(lambda _environ, _start: [b""], host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    address, descriptor = server.socket.getsockname(), server.trigger.trigger
    pull = server.trigger._physical_pull

    def after_another() -> None:
        pull()
        thread.join(10)
        assert not thread.is_alive(), "the loop has ended"
        pull()

    monkeypatch.setattr(server.trigger, "_physical_pull", after_another)
    end_loop(server, thread)
    server.task_dispatcher.shutdown()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
