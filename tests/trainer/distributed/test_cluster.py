"""The cluster is read from the environment, whoever set it; what is wrong there is said at once."""

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import types
from pathlib import Path

import pytest
import tensorflow as tf

from trainer.distributed.cluster import resolve_cluster

ROOT = Path(__file__).resolve().parents[3]
TWO = {"worker": ["a:1", "b:2"]}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Sets variables of the environment, from none of those that say where a process runs."""
    for name in list(os.environ):
        ours = ("SLURM", "TERMWISE", "KUBERNETES")
        if name in ("TF_CONFIG", "JOB_COMPLETION_INDEX", "HOSTNAME") or name.startswith(ours):
            monkeypatch.delenv(name)

    def setting(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value if isinstance(value, str) else json.dumps(value))

    return setting


def addresses(cluster):
    return cluster.resolver().cluster_spec().as_dict()


def test_nothing_set_is_an_error_that_names_the_launcher():
    with pytest.raises(ValueError, match=r"neither TF_CONFIG.*python -m trainer\.launch"):
        resolve_cluster()


# TF_CONFIG


@pytest.mark.parametrize("index", [0, 1, "1"], ids=repr)
def test_tf_config_gives_workers_and_the_first_is_the_chief(environment, index):
    environment(TF_CONFIG={"cluster": TWO, "task": {"type": "worker", "index": index}})
    found = resolve_cluster()
    assert (found.workers, found.index, found.task) == (2, int(index), ("worker", int(index)))
    assert found.chief == (index == 0)
    assert found.engine.name == "TF_CONFIG"
    assert addresses(found) == TWO
    resolver = found.resolver()
    assert (resolver.task_type, resolver.task_id) == ("worker", int(index))


@pytest.mark.parametrize(("kind", "chief"), [("chief", True), ("worker", False)])
def test_a_chief_is_one_of_the_workers(environment, kind, chief):
    cluster = {"chief": ["a:1"], "worker": ["b:2", "c:3"]}
    environment(TF_CONFIG={"cluster": cluster, "task": {"type": kind, "index": 0}})
    found = resolve_cluster()
    assert (found.workers, found.task, found.chief) == (3, (kind, 0), chief)
    assert found.addresses == ("a:1", "b:2", "c:3")


def test_tf_config_comes_before_slurm(environment):
    environment(TF_CONFIG={"cluster": TWO, "task": {"type": "worker", "index": 0}})
    environment(SLURM_STEP_NUM_TASKS="2", SLURM_PROCID="1")
    assert resolve_cluster().engine.name == "TF_CONFIG"


TASK = {"type": "worker", "index": 0}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "is no JSON"),
        ("", "is no JSON"),
        ([], "names no cluster"),
        ({"task": TASK}, "names no cluster"),
        ({"cluster": {}, "task": TASK}, "names no cluster"),
        ({"cluster": {**TWO, "ps": ["c:3"]}, "task": TASK}, "has the job 'ps'"),
        ({"cluster": {**TWO, "evaluator": ["c:3"]}, "task": TASK}, "has the job 'evaluator'"),
        ({"cluster": {"worker": []}, "task": TASK}, "gives no list of addresses for 'worker'"),
        ({"cluster": {"worker": "a:1"}, "task": TASK}, "gives no list of addresses"),
        ({"cluster": {"worker": ["a"]}, "task": TASK}, "has the address 'a'"),
        ({"cluster": {"worker": ["http://a:1"]}, "task": TASK}, "has the address 'http://a:1'"),
        ({"cluster": {"worker": [7]}, "task": TASK}, "has the address 7"),
        ({"cluster": {"worker": ["a:1", "a:1"]}, "task": TASK}, "gives two workers one address"),
        ({"cluster": {**TWO, "chief": ["c:1", "d:1"]}, "task": TASK}, "more than one chief"),
        ({"cluster": TWO}, "does not say which task"),
        ({"cluster": TWO, "task": {"type": "worker"}}, "does not say which task"),
        ({"cluster": TWO, "task": {"type": "evaluator", "index": 0}}, "is a 'evaluator'"),
        ({"cluster": TWO, "task": {"type": "worker", "index": 2}}, "has the index 2, the cluster"),
        ({"cluster": TWO, "task": {"type": "worker", "index": -1}}, "has the index -1"),
        ({"cluster": TWO, "task": {"type": "worker", "index": True}}, "has the index True"),
        ({"cluster": TWO, "task": {"type": "worker", "index": "x"}}, "has the index 'x'"),
    ],
)
def test_a_wrong_tf_config_is_said_with_what_is_expected(environment, config, said):
    environment(TF_CONFIG=config)
    with pytest.raises(ValueError, match=r'Set it to \{"cluster"') as error:
        resolve_cluster()
    assert str(error.value).startswith("TF_CONFIG ") and said in str(error.value)


# Several at once


def test_the_launcher_and_ray_say_that_tf_config_is_theirs(environment):
    environment(TF_CONFIG={"cluster": TWO, "task": TASK}, SLURM_STEP_NUM_TASKS="8")
    for name in ("local", "Ray", "TF_CONFIG"):
        environment(TERMWISE_ENGINE=name)
        assert resolve_cluster().engine.name == name


@pytest.mark.parametrize("tasks", ["1", "2"])
def test_a_tf_config_by_hand_may_be_for_the_tasks_of_a_step_or_for_a_shell_in_it(
    environment, tasks
):
    environment(TF_CONFIG={"cluster": TWO, "task": TASK}, SLURM_STEP_NUM_TASKS=tasks)
    assert resolve_cluster().engine.name == "TF_CONFIG"


def test_a_tf_config_that_contradicts_the_step_is_refused(environment):
    environment(TF_CONFIG={"cluster": TWO, "task": TASK}, SLURM_STEP_NUM_TASKS="8")
    with pytest.raises(ValueError, match=r"names 2 workers, and the SLURM step has 8 tasks\. Uns"):
        resolve_cluster()


def test_a_tf_config_that_contradicts_the_pod_is_refused(environment):
    environment(TF_CONFIG={"cluster": TWO, "task": TASK}, JOB_COMPLETION_INDEX="1")
    with pytest.raises(ValueError, match=r"process 0, and JOB_COMPLETION_INDEX that it is 1\. Un"):
        resolve_cluster()
    environment(JOB_COMPLETION_INDEX="0")
    assert resolve_cluster().engine.name == "TF_CONFIG"


def test_a_task_of_slurm_in_a_pod_must_say_which_it_is(environment):
    environment(**slurm(1), **indexed(0))
    with pytest.raises(ValueError, match="TERMWISE_ENGINE=SLURM or =Kubernetes"):
        resolve_cluster()
    environment(TERMWISE_ENGINE="SLURM")
    assert (resolve_cluster().engine.name, resolve_cluster().index) == ("SLURM", 1)
    environment(TERMWISE_ENGINE="Kubernetes")
    assert (resolve_cluster().engine.name, resolve_cluster().index) == ("Kubernetes", 0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("slurm", "accepted are 'TF_CONFIG', 'local', 'Ray', 'SLURM', 'Kubernetes'"),
        ("SLURM", "neither SLURM_STEP_NUM_TASKS nor SLURM_JOB_ID is set"),
        ("Kubernetes", "neither TERMWISE_PODS nor JOB_COMPLETION_INDEX is set"),
        ("Ray", "TF_CONFIG is not set"),
    ],
)
def test_an_engine_that_is_not_there_is_said(environment, name, said):
    environment(TERMWISE_ENGINE=name)
    with pytest.raises(ValueError, match=f"TERMWISE_ENGINE='{name}'.*{said}"):
        resolve_cluster()


@pytest.mark.parametrize("workers", [2, 9])
def test_a_line_says_who_is_there_and_how_a_run_goes_on(environment, workers):
    worker = [f"h{i}:1" for i in range(workers)]
    environment(TF_CONFIG={"cluster": {"worker": worker}, "task": TASK}, TERMWISE_ENGINE="local")
    line = resolve_cluster().describe()
    assert line.startswith(
        "hosts h0:1, h1:1 |" if workers == 2 else "hosts h0:1, h1:1, h2:1, ..., h8:1 |"
    )
    assert "SIGTERM saves; sent by the launcher" in line
    assert line.endswith("after a loss: The launcher starts all again.")


def test_a_description_cannot_be_changed(environment):
    environment(TF_CONFIG={"cluster": TWO, "task": TASK})
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolve_cluster().index = 1


# SLURM


def slurm(rank, nodes="n[1-2]", per_node="1(x2)", tasks=2, **more):
    return {
        "SLURM_JOB_ID": "1234567",
        "SLURM_PROCID": str(rank),
        "SLURM_STEP_NUM_TASKS": str(tasks),
        "SLURM_STEP_NODELIST": nodes,
        "SLURM_STEP_TASKS_PER_NODE": per_node,
        **more,
    }


PORT = 10_000 + 20 * 567  # of job 1234567


@pytest.mark.parametrize("visible", [None, "", "0"])
def test_slurm_gives_one_worker_per_task_with_gpus_or_none(environment, monkeypatch, visible):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        environment(CUDA_VISIBLE_DEVICES=visible)
    environment(**slurm(1))
    found = resolve_cluster()
    assert addresses(found) == {"worker": [f"n1:{PORT}", f"n2:{PORT}"]}
    assert (found.workers, found.index, found.chief) == (2, 1, False)
    resolver = found.resolver()
    assert (resolver.task_type, resolver.task_id) == ("worker", 1)
    assert (found.engine.name, resolver.rpc_layer) == ("SLURM", "grpc")
    gpus = len(tf.config.list_physical_devices("GPU"))
    assert resolver.num_accelerators() == {"GPU": gpus}


def test_tasks_on_one_host_have_ports_of_their_own(environment):
    environment(**slurm(2, "a,b", "2,1", 3, SLURMD_NODENAME="b", SLURM_LOCALID="0"))
    worker = [f"a:{PORT}", f"a:{PORT + 1}", f"b:{PORT}"]
    assert addresses(resolve_cluster()) == {"worker": worker}


def test_the_port_can_be_given(environment):
    environment(**slurm(0, TERMWISE_PORT="7000"))
    assert addresses(resolve_cluster()) == {"worker": ["n1:7000", "n2:7000"]}
    environment(TERMWISE_PORT="none")
    with pytest.raises(ValueError, match="TERMWISE_PORT='none': accepted is a number"):
        resolve_cluster()


@pytest.mark.parametrize("rank", [1, 2, 10])
def test_ten_hosts_are_in_the_order_of_their_numbers(environment, rank):
    environment(**slurm(rank, "n[1-11]", "1(x11)", 11, SLURMD_NODENAME=f"n{rank + 1}"))
    found = resolve_cluster()
    assert addresses(found)["worker"] == [f"n{number}:{PORT}" for number in range(1, 12)]
    assert found.index == rank


def test_tasks_that_are_dealt_out_in_turn_are_refused(environment):
    environment(**slurm(1, "n[1-2]", "2(x2)", 4, SLURMD_NODENAME="n2", SLURM_LOCALID="0"))
    with pytest.raises(ValueError, match=r"runs task 1 at n2:\d+, where n1:.*distribution=block"):
        resolve_cluster()


def test_a_slurm_job_outside_a_step_is_an_error(environment):
    environment(SLURM_JOB_ID="7", SLURM_PROCID="0")
    with pytest.raises(ValueError, match="Start the workers with srun"):
        resolve_cluster()


@pytest.mark.parametrize(
    "wrong",
    [
        {"SLURM_STEP_NODELIST": "n[1-"},
        {"SLURM_STEP_TASKS_PER_NODE": "many"},
        {"SLURM_STEP_NUM_TASKS": "3"},
        {"SLURM_STEP_NUM_TASKS": "x"},
        {"SLURM_PROCID": "9"},
    ],
)
def test_slurm_variables_that_do_not_fit_are_said(environment, wrong):
    environment(**{**slurm(0), **wrong})
    with pytest.raises(ValueError, match="Start them with srun"):
        resolve_cluster()


TASK_OF_TWO = """
import sys
import tensorflow as tf
from trainer.distributed.cluster import resolve_cluster

cluster = resolve_cluster()
strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster.resolver())

@tf.function
def total():
    return strategy.reduce("SUM", strategy.run(lambda: tf.constant(1 + cluster.index)), axis=None)

print(strategy.num_replicas_in_sync, int(total()))
"""


@pytest.mark.slow
def test_two_slurm_tasks_make_one_strategy():
    port, tasks = str(two_free_ports()), []
    for rank in range(2):
        where = {"SLURM_LOCALID": str(rank), "SLURMD_NODENAME": "127.0.0.1", "no_proxy": "*"}
        settings = slurm(rank, "127.0.0.1", "2", TERMWISE_PORT=port, **where)
        tasks.append(
            subprocess.Popen(
                [sys.executable, "-c", TASK_OF_TWO],
                env={**os.environ, **settings, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        ends = [task.communicate(timeout=120) for task in tasks]
    finally:
        for task in tasks:
            task.kill()
    for out, error in ends:
        assert out.split() == ["2", "3"], error[-2000:]


def two_free_ports():
    """The first of two neighbouring ports that are free."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                other.bind(("127.0.0.1", port + 1))
                return port


# Kubernetes, an Indexed Job


def indexed(index, name="digits", **more):
    return {
        "JOB_COMPLETION_INDEX": str(index),
        "HOSTNAME": f"{name}-{index}",
        "TERMWISE_WORKERS": "2",
        "TERMWISE_SERVICE": "workers",
        **more,
    }


@pytest.mark.parametrize("name", ["digits", "digits-workers-0"], ids=["Job", "JobSet"])
@pytest.mark.parametrize("index", [0, 1])
def test_the_pods_of_an_indexed_job_are_known_by_their_names(environment, name, index):
    environment(**indexed(index, name))
    found = resolve_cluster()
    assert found.addresses == (f"{name}-0.workers:2222", f"{name}-1.workers:2222")
    assert (found.index, found.chief, found.engine.name) == (index, index == 0, "Kubernetes")
    environment(TERMWISE_PORT="7000", TERMWISE_SERVICE="w.spaces.svc.cluster.local")
    assert resolve_cluster().addresses[0] == f"{name}-0.w.spaces.svc.cluster.local:7000"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"TERMWISE_WORKERS": ""}, r"needs TERMWISE_WORKERS.*TERMWISE_SERVICE.*kubernetes\.yaml"),
        ({"TERMWISE_SERVICE": ""}, r"needs TERMWISE_WORKERS.*TERMWISE_SERVICE"),
        ({"TERMWISE_SERVICE": "a:1"}, "TERMWISE_SERVICE='a:1': accepted is the name"),
        ({"TERMWISE_WORKERS": "1"}, r"INDEX=1, and TERMWISE_WORKERS=1: the indices are 0 to 0\."),
        ({"JOB_COMPLETION_INDEX": "x"}, "JOB_COMPLETION_INDEX='x': accepted is a number"),
        ({"JOB_COMPLETION_INDEX": "-1"}, "completionMode: Indexed"),
        ({"HOSTNAME": "node7"}, "HOSTNAME='node7' does not end with -1.*Leave out hostNetwork"),
        ({"HOSTNAME": "-1"}, "HOSTNAME='-1' does not end with"),
        ({"HOSTNAME": ""}, "HOSTNAME='' does not end with"),
    ],
)
def test_what_does_not_fit_in_a_pod_is_said(environment, wrong, said):
    environment(**{**indexed(1), **wrong})
    with pytest.raises(ValueError, match=said):
        resolve_cluster()


# Kubernetes, pods by a label


def pod(name, host, phase="Running"):
    return types.SimpleNamespace(
        metadata=types.SimpleNamespace(name=name),
        status=types.SimpleNamespace(phase=phase, host_ip=host),
    )


@pytest.fixture
def pods(monkeypatch, environment):
    """The answers of a cluster's API server, one list of pods for each question; the last stays."""
    answers = []

    class CoreV1Api:
        def list_pod_for_all_namespaces(self, label_selector):
            assert label_selector == "job-name=digits"
            return types.SimpleNamespace(items=answers.pop(0) if answers[1:] else answers[0])

    package = types.ModuleType("kubernetes")
    package.client = types.SimpleNamespace(CoreV1Api=CoreV1Api)
    package.config = types.SimpleNamespace(load_incluster_config=lambda: None)
    monkeypatch.setitem(sys.modules, "kubernetes", package)
    environment(TERMWISE_PODS="job-name=digits", TERMWISE_WORKERS="2", TERMWISE_STARTUP_S="0.5")
    return answers


def test_pods_are_found_by_their_label_and_this_one_by_its_host(environment, pods):
    pods += [[pod("digits-1-x", "10.0.0.8"), pod("digits-0-y", "10.0.0.9")]]
    environment(TERMWISE_HOST_IP="10.0.0.8", TERMWISE_PORT="7000")
    found = resolve_cluster()
    assert addresses(found) == {"worker": ["10.0.0.9:7000", "10.0.0.8:7000"]}
    assert (found.workers, found.index, found.chief) == (2, 1, False)
    assert found.engine.name == "Kubernetes"


def test_pods_that_are_not_there_yet_are_waited_for(environment, pods):
    first, second = pod("digits-0", "10.0.0.8"), pod("digits-1", "10.0.0.9")
    pods += [[first], [first, pod("digits-1", None, "Pending")], [first, second]]
    environment(TERMWISE_HOST_IP="10.0.0.8")
    assert resolve_cluster().chief


def test_pods_that_never_come_are_named(environment, pods):
    pods += [[pod("digits-0", "10.0.0.8"), pod("digits-1", None, "Pending")]]
    environment(TERMWISE_HOST_IP="10.0.0.8")
    with pytest.raises(TimeoutError, match=r'2 pods .* within 0\.5 s: Pod "digits-1" is not run'):
        resolve_cluster()


@pytest.mark.parametrize("own", ["10.0.0.8", "10.0.0.9"])
def test_pods_on_one_host_or_on_none_of_theirs_are_refused(environment, pods, own):
    pods += [[pod("digits-0", "10.0.0.8"), pod("digits-1", "10.0.0.8")]]
    environment(TERMWISE_HOST_IP=own)
    with pytest.raises(ValueError, match="on a host of its own, with hostNetwork: true"):
        resolve_cluster()


@pytest.mark.parametrize("missing", ["TERMWISE_WORKERS", "TERMWISE_HOST_IP"])
def test_what_a_pod_must_be_told_is_named(environment, monkeypatch, pods, missing):
    environment(TERMWISE_HOST_IP="10.0.0.8")
    monkeypatch.delenv(missing)
    with pytest.raises(ValueError, match=r"needs TERMWISE_WORKERS.*TERMWISE_HOST_IP"):
        resolve_cluster()


def test_a_missing_kubernetes_package_is_said(environment, monkeypatch):
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    environment(TERMWISE_PODS="job-name=digits")
    with pytest.raises(ImportError, match="Install it, or set TF_CONFIG"):
        resolve_cluster()
