"""The workers of a run meet before TensorFlow starts, which would wait for them deaf to everything.

TensorFlow 2.21 holds Python's interpreter lock while it waits for the other workers: no thread and
no signal handler of this process runs, so that nothing in it could end the wait.
"""

from __future__ import annotations

import contextlib
import socket
import time

HELLO, GO = b"termwise worker %d\n", b"termwise go\n"
RETRY_SECONDS = 0.2


def meet(addresses: list[str], index: int, seconds: float) -> None:
    """Returns on every worker once all are here.

    The first one listens at its own address, which TensorFlow takes over afterwards; each other
    says who it is there, and is answered when the last has come.

    Args:
      addresses: "host:port" of all workers, the chief's first; the same list on each.
      index: int, the place of this one in it.
      seconds: float, how long to wait.
    Raises:
      TimeoutError: not all came in time; the message names those that are missing.
      OSError: the own address is taken.

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


def _gather(addresses, end):
    port = int(addresses[0].rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("", port), backlog=len(addresses)))
        came: dict[int, socket.socket] = {}
        while len(came) < len(addresses) - 1:
            try:
                server.settimeout(_left(end))
                one = stack.enter_context(server.accept()[0])
                one.settimeout(min(_left(end), 5.0))
                hello = _line(one)
            except TimeoutError:
                if time.monotonic() < end:
                    continue  # somebody who says nothing
                missing = set(range(1, len(addresses))) - set(came)
                raise TimeoutError(", ".join(addresses[i] for i in sorted(missing))) from None
            except OSError:
                continue
            for index in range(1, len(addresses)):
                if hello == HELLO % index:
                    came[index] = one  # one that was started anew comes again
        for one in came.values():
            with contextlib.suppress(OSError):
                one.sendall(GO)
        for one in came.values():
            with contextlib.suppress(OSError):
                one.recv(1)  # they close first: the port is free at once


def _join(address, index, end):
    host, _, port = address.rpartition(":")
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), _left(end)) as chief:
                chief.sendall(HELLO % index)
                chief.settimeout(_left(end))
                if _line(chief) == GO:
                    return
        except OSError:  # it does not listen yet, or is not known yet, or went away
            pass
        if time.monotonic() + RETRY_SECONDS > end:
            raise TimeoutError(address)
        time.sleep(RETRY_SECONDS)


def _left(end):
    return max(0.01, end - time.monotonic())


def _line(connection):
    """What is said up to the first line break, 64 bytes at most."""
    said = b""
    while not said.endswith(b"\n") and len(said) < 64:
        if not (byte := connection.recv(1)):
            break
        said += byte
    return said
