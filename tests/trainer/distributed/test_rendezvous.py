"""Workers meet before TensorFlow starts; one that waits in vain says for whom."""

import contextlib
import socket
import threading
import time
import types

import pytest

from trainer.distributed import rendezvous
from trainer.distributed.rendezvous import meet


def free_addresses(number):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return addresses


class Workers:
    """Workers that meet, each in a thread; `found` is index -> None, or why it waited in vain."""

    def __init__(self, addresses, seconds=300.0):
        self.addresses, self.seconds = addresses, seconds
        self.found, self.threads = {}, []

    def start(self, *indices):
        threads = [threading.Thread(target=self._meet, args=(index,)) for index in indices]
        for thread in threads:
            thread.start()
        self.threads += threads
        return self

    def end(self):
        for thread in self.threads:
            thread.join()
        return self.found

    def _meet(self, index):
        try:
            self.found[index] = meet(self.addresses, index, self.seconds)
        except TimeoutError as error:
            self.found[index] = str(error)


@pytest.fixture
def time_is_over(monkeypatch):
    """The clock of those who wait stands still until the event is set; then their time is over."""
    over = threading.Event()
    clock = types.SimpleNamespace(monotonic=lambda: 1e9 * over.is_set(), sleep=time.sleep)
    monkeypatch.setattr(rendezvous, "time", clock)
    return over


def when_heard(monkeypatch, line, event):
    """Sets an event once the chief has heard a line."""
    real = rendezvous._line

    def hear(connection):
        heard = real(connection)
        if heard == line:
            event.set()
        return heard

    monkeypatch.setattr(rendezvous, "_line", hear)


@pytest.mark.parametrize("last", [0, 2])
def test_all_return_once_the_last_has_come(last):
    workers = Workers(free_addresses(3)).start(*{0, 1, 2} - {last})
    for thread in workers.threads:
        thread.join(0.1)
    assert workers.found == {}
    assert workers.start(last).end() == {0: None, 1: None, 2: None}


def test_the_chief_names_those_that_are_missing(time_is_over, monkeypatch):
    when_heard(monkeypatch, rendezvous.HELLO % 1, time_is_over)
    addresses = free_addresses(3)
    found = Workers(addresses, seconds=0.5).start(0, 1).end()
    assert found == {0: addresses[2], 1: addresses[0]}


def test_a_worker_without_a_chief_names_it():
    addresses = free_addresses(2)
    assert Workers(addresses, seconds=0.1).start(1).end() == {1: addresses[0]}


def test_the_port_is_free_afterwards():
    addresses = free_addresses(2)
    assert Workers(addresses).start(0, 1).end() == {0: None, 1: None}
    socket.create_server(("", int(addresses[0].rpartition(":")[2]))).close()


def test_a_stranger_is_not_taken_for_a_worker(time_is_over, monkeypatch):
    line = b"GET / HTTP/1.1\n"
    when_heard(monkeypatch, line, time_is_over)
    addresses = free_addresses(2)
    workers = Workers(addresses, seconds=0.2).start(0)
    while not time_is_over.is_set():
        with contextlib.suppress(OSError):  # nobody listens there yet
            port = int(addresses[0].rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port)) as stranger:
                stranger.sendall(line)
                time_is_over.wait(1)
    assert workers.end() == {0: addresses[1]}
