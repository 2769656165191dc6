"""Hosts with addresses and names of their own train together; a pod dies, and all go on."""

import contextlib
import json
import signal

import pytest

from tests.trainer.clusters import namespaces
from tests.trainer.clusters.started import (
    Started,
    check_close,
    command,
    environment,
    resumed_from,
)

REASON = namespaces.missing()
pytestmark = [
    pytest.mark.very_slow,
    pytest.mark.skipif(bool(REASON), reason=REASON or "there are some"),
]


@contextlib.contextmanager
def running(hosts, workdir, variables, **job):
    """A worker on each host, with the variables that a function of its place gives."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                Started(
                    hosts.inside(index, command(workdir, **job)),
                    environment(**variables(index), TERMWISE_STARTUP_S=900),
                )
            )
            for index in range(len(hosts.addresses))
        ]


def of_pod(index):
    """What Kubernetes sets in the pods of an Indexed Job, and what docs/kubernetes.yaml does."""
    name, _, service = namespaces.POD.format(index).partition(".")
    return {
        "JOB_COMPLETION_INDEX": index,
        "HOSTNAME": name,
        "TERMWISE_SERVICE": service,
        "TERMWISE_WORKERS": 2,
    }


def test_three_hosts_with_addresses_of_their_own_train_what_one_device_trains(
    undisturbed, tmp_path
):
    with namespaces.Namespaces(3) as hosts:
        workers = [f"{address}:2222" for address in hosts.addresses]

        def by_hand(index):
            task = {"type": "worker", "index": index}
            return {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": task})}

        with running(hosts, tmp_path / "run", by_hand) as started:
            for host in started:
                assert host.end() == 0, "".join(host.said[-40:])
    check_close(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("dies", [1, 0], ids=["other", "chief"])
def test_pods_that_know_each_other_by_name_go_on_when_one_of_them_dies(dies, undisturbed, tmp_path):
    go = tmp_path / "go"
    with namespaces.Namespaces(2) as hosts:
        with running(hosts, tmp_path / "run", of_pod, hold="step 30", go=go) as pods:
            for pod in pods:
                assert pod.when("step 30"), "".join(pod.said[-40:])
            pods[dies].send(signal.SIGKILL)
            go.touch()
            left = pods[1 - dies]
            # TensorFlow ends a worker itself where the chief, its coordinator, is gone
            assert left.end() in (75, -signal.SIGABRT), "".join(left.said[-40:])
            assert "Graph execution error" not in "".join(left.said)
        with running(hosts, tmp_path / "run", of_pod) as pods:
            for pod in pods:
                assert pod.end() == 0, "".join(pod.said[-40:])
    assert len(resumed_from(tmp_path / "run")) == 2
    check_close(tmp_path / "run", undisturbed)
