"""A host that waits for another one says so, and says nothing where it need not."""

import threading

from trainer.distributed.waiting import Waiting


class Said(list):
    """Lines, and a way to wait for them."""

    def __init__(self):
        super().__init__()
        self.event = threading.Event()

    def __call__(self, line):
        self.append(line)
        if len(self) == 2:
            self.event.set()


def test_a_call_that_does_not_come_back_is_told_again_and_again():
    said = Said()
    waiting = Waiting(2, 1, seconds=0.01, say=said)
    with waiting.call("steps 41 to 80"):
        assert said.event.wait(300)
    waiting.close()
    assert said[0].startswith("waiting: host 1 has been in steps 41 to 80 for 0 s (the longest")
    assert "slow, stopped or cut off" in said[0]


def test_calls_that_come_back_are_not_told():
    said = Said()
    waiting = Waiting(2, 0, seconds=300, say=said)
    for _ in range(3):
        with waiting.call("steps"):
            pass
    waiting.close()
    waiting.close()
    assert not said


def test_a_single_host_waits_for_nobody():
    threads = threading.active_count()
    with Waiting(1, 0, seconds=0.0).call("steps"):
        assert threading.active_count() == threads
