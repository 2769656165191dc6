"""The workers of a run meet before TensorFlow starts, whose own waiting nothing can end.

TensorFlow 2.21 holds Python's interpreter lock while it waits for the other workers: no thread and
no signal handler of this process runs meanwhile.
"""

from __future__ import annotations

import contextlib
import socket
import time

HELLO, GO = b"termwise worker %d\n", b"termwise go\n"
RETRY_SECONDS = 0.2


def meet(addresses: list[str], index: int, seconds: float) -> None:
    """Returns on every worker once all are here.

    The first worker listens at its address, which TensorFlow takes over afterwards. Each other
    one says there who it is, and is answered when the last has come.

    Args:
      addresses: "host:port" of all workers, the chief's first; the same list on each.
      index: int, the place of this worker in that list.
      seconds: float, how long to wait.
    Raises:
      TimeoutError: not all came in time; the message names those that are missing.
      OSError: another process listens at the address of this worker.

    Example: (one worker meets nobody)
      >>> meet(["127.0.0.1:2222"], 0, seconds=1)
    """
    end = time.monotonic() + seconds
    if len(addresses) == 1:
        return
    if index == 0:
        _gather(addresses, end)
    else:
        _join(addresses[0], index, end)


def _gather(addresses: list[str], end: float) -> None:
    """The chief's part: waits at its address for all others."""
    port = int(addresses[0].rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("", port), backlog=len(addresses)))
        peers: dict[int, socket.socket] = {}
        while len(peers) < len(addresses) - 1:
            try:
                server.settimeout(_left(end))
                connection = stack.enter_context(server.accept()[0])
                connection.settimeout(min(_left(end), 5.0))
                hello = _line(connection)
            except TimeoutError:
                if time.monotonic() < end:
                    continue  # somebody connected and says nothing
                missing = set(range(1, len(addresses))) - set(peers)
                raise TimeoutError(", ".join(addresses[i] for i in sorted(missing))) from None
            except OSError:
                continue
            for index in range(1, len(addresses)):
                if hello == HELLO % index:
                    peers[index] = connection  # a worker that was started anew comes again
        _release(list(peers.values()))


def _release(connections: list[socket.socket]) -> None:
    """Tells every worker to go on, and waits until each has closed its connection.

    They close first, so that the chief's port is free at once.
    """
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.sendall(GO)
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.recv(1)


def _join(address: str, index: int, end: float) -> None:
    """The part of every other worker: says who it is at the chief's address, and waits."""
    host, _, port = address.rpartition(":")
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), _left(end)) as chief:
                chief.sendall(HELLO % index)
                chief.settimeout(_left(end))
                if _line(chief) == GO:
                    return
        except OSError:  # the chief does not listen yet, or its name is not known yet, or it left
            pass
        if time.monotonic() + RETRY_SECONDS > end:
            raise TimeoutError(address)
        time.sleep(RETRY_SECONDS)


def _left(end: float) -> float:
    """The seconds until a time of the monotonic clock, at least a hundredth."""
    return max(0.01, end - time.monotonic())


def _line(connection: socket.socket) -> bytes:
    """What comes up to the first line break, 64 bytes at most."""
    line = b""
    while not line.endswith(b"\n") and len(line) < 64:
        if not (byte := connection.recv(1)):
            break
        line += byte
    return line
