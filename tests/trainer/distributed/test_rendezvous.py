"""Workers meet before TensorFlow starts; one that waits in vain says for whom."""

import socket
import threading
import time

import pytest

from trainer.distributed.rendezvous import meet


def free_addresses(number):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return addresses


def meet_in_threads(addresses, delays, seconds=10):
    """The workers of these indices, each after its delay: index -> when it returned or an error."""
    found = {}

    def worker(index, delay):
        time.sleep(delay)
        try:
            meet(addresses, index, seconds)
            found[index] = time.monotonic()
        except TimeoutError as error:
            found[index] = error

    threads = [threading.Thread(target=worker, args=pair) for pair in delays.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("last", [0, 2])
def test_all_return_once_the_last_has_come(last):
    began = time.monotonic()
    found = meet_in_threads(free_addresses(3), {**dict.fromkeys(range(3), 0), last: 0.5})
    assert sorted(found) == [0, 1, 2]
    assert min(found.values()) - began >= 0.5
    assert max(found.values()) - began < 5


def test_the_chief_names_those_that_are_missing():
    addresses = free_addresses(3)
    found = meet_in_threads(addresses, {0: 0, 1: 0}, seconds=0.5)
    assert str(found[0]) == addresses[2]
    assert str(found[1]) == addresses[0]


def test_a_worker_without_a_chief_names_it():
    addresses = free_addresses(2)
    found = meet_in_threads(addresses, {1: 0}, seconds=0.5)
    assert str(found[1]) == addresses[0]


def test_the_port_is_free_afterwards():
    addresses = free_addresses(2)
    meet_in_threads(addresses, {0: 0, 1: 0})
    socket.create_server(("", int(addresses[0].rpartition(":")[2]))).close()


def test_a_stranger_is_not_taken_for_a_worker():
    addresses = free_addresses(2)

    def stranger():
        time.sleep(0.2)
        with socket.create_connection(("127.0.0.1", int(addresses[0].rpartition(":")[2]))) as one:
            one.sendall(b"GET / HTTP/1.1\n")

    thread = threading.Thread(target=stranger)
    thread.start()
    found = meet_in_threads(addresses, {0: 0}, seconds=1.0)
    thread.join()
    assert str(found[0]) == addresses[1]
