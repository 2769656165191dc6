"""The manifests for Kubernetes, field by field: an Indexed Job, and a JobSet."""

import os
from pathlib import Path

import pytest
import yaml

from trainer.distributed.cluster import resolve_cluster

ROOT = Path(__file__).resolve().parents[3]


class Manifest:
    """What an Indexed Job and a JobSet have in common.

    Attributes:
      name: of the Job, as Kubernetes makes the names of its pods of it.
      service: the name of the headless Service.
      job: the Job's specification.
      pod: the specification of its pods.
      container: the only one.
    """

    def __init__(self, name, service, job):
        self.name, self.service, self.job = name, service, job
        self.pod = job["template"]["spec"]
        (self.container,) = self.pod["containers"]

    @property
    def environment(self):
        return {variable["name"]: variable["value"] for variable in self.container["env"]}


def documents(file):
    with open(ROOT / "docs" / file, encoding="utf-8") as opened:
        return list(yaml.safe_load_all(opened))


def of_job():
    service, job = documents("kubernetes.yaml")
    return Manifest(job["metadata"]["name"], service["metadata"]["name"], job["spec"])


def of_jobset():
    (document,) = documents("jobset.yaml")
    (replicated,) = document["spec"]["replicatedJobs"]
    assert replicated["replicas"] == 1  # of which the first is number 0
    name = f"{document['metadata']['name']}-{replicated['name']}-0"
    return Manifest(name, document["spec"]["network"]["subdomain"], replicated["template"]["spec"])


@pytest.fixture(params=[of_job, of_jobset])
def manifest(request):
    return request.param()


def test_the_service_is_headless_and_finds_the_pods_of_the_job():
    service, job = documents("kubernetes.yaml")
    assert (service["kind"], service["apiVersion"]) == ("Service", "v1")
    assert (job["kind"], job["apiVersion"]) == ("Job", "batch/v1")
    assert service["spec"]["clusterIP"] == "None"
    # pods find each other before they are ready, or none ever would be
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    (port,) = of_job().container["ports"]
    assert [entry["port"] for entry in service["spec"]["ports"]] == [port["containerPort"]]
    assert of_job().pod["subdomain"] == service["metadata"]["name"]


def test_a_jobset_makes_its_service_and_starts_all_again():
    (document,) = documents("jobset.yaml")
    assert (document["kind"], document["apiVersion"]) == ("JobSet", "jobset.x-k8s.io/v1alpha2")
    network = document["spec"]["network"]
    assert network["enableDNSHostnames"] is network["publishNotReadyAddresses"] is True
    policy = document["spec"]["failurePolicy"]
    assert policy["maxRestarts"] >= 3
    (rule,) = policy["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    # any other failure ends the Job at once, and so starts the JobSet again
    assert of_jobset().job["backoffLimit"] == 0


def test_the_job_is_indexed_and_all_its_pods_run_together(manifest):
    known = {"completions", "parallelism", "completionMode", "backoffLimit", "podFailurePolicy"}
    assert set(manifest.job) == known | {"template"}
    assert manifest.job["completionMode"] == "Indexed"
    assert manifest.job["completions"] == manifest.job["parallelism"] == 2


@pytest.mark.parametrize("index", [0, 1])
def test_each_pod_finds_its_place(manifest, index, monkeypatch):
    for name in list(os.environ):
        if name == "TF_CONFIG" or name.startswith(("SLURM", "TERMWISE")):
            monkeypatch.delenv(name)
    # what Kubernetes sets by itself
    monkeypatch.setenv("JOB_COMPLETION_INDEX", str(index))
    monkeypatch.setenv("HOSTNAME", f"{manifest.name}-{index}")
    for name, value in manifest.environment.items():
        monkeypatch.setenv(name, value)
    found = resolve_cluster()
    (port,) = (port["containerPort"] for port in manifest.container["ports"])
    names = [f"{manifest.name}-{i}.{manifest.service}:{port}" for i in range(2)]
    assert found.addresses == tuple(names)
    assert (found.index, found.engine.name) == (index, "Kubernetes")


def test_the_manifest_restarts_what_a_restart_can_help(manifest):
    # a failure policy is accepted with no other restart policy
    assert manifest.pod["restartPolicy"] == "Never"
    name = manifest.container["name"]
    rules = manifest.job["podFailurePolicy"]["rules"]
    actions = {}
    for rule in rules:
        if "onExitCodes" in rule:
            codes = rule["onExitCodes"]
            assert (codes["containerName"], codes["operator"]) == (name, "In")
            assert codes["values"] == sorted(codes["values"])
            actions |= dict.fromkeys(codes["values"], rule["action"])
    # A wrong flag stays wrong, a missed check (43) missed; one that saved is started again,
    # uncounted. A lost peer (75) counts:
    # a worker whose peer is done, or never comes, must not be started for ever.
    assert actions == {2: "FailJob", 42: "Ignore", 43: "FailJob"}
    disrupted = [{"type": "DisruptionTarget", "status": "True"}]
    assert {"action": "Ignore", "onPodConditions": disrupted} in rules
    disruptions = [rule for rule in rules if "onPodConditions" in rule]
    assert [rule["action"] for rule in disruptions] == ["Ignore"]


def test_a_job_alone_has_failures_for_several_losses():
    # when one pod dies, each other counts too
    assert of_job().job["backoffLimit"] >= 3 * of_job().job["completions"]


def test_the_manifest_runs_a_command_of_this_package_on_a_shared_directory(manifest):
    command = manifest.container["command"]
    assert command[:3] == ["python", "-m", "experiments.run"]
    assert "--strategy=multi_worker" in command
    (workdir,) = (word.partition("=")[2] for word in command if word.startswith("--workdir="))
    (mount,) = manifest.container["volumeMounts"]
    (volume,) = manifest.pod["volumes"]
    assert mount["name"] == volume["name"] and "persistentVolumeClaim" in volume
    assert workdir.startswith(mount["mountPath"] + "/")
    config = [word.partition("=")[2] for word in command if word.startswith("--config=")]
    assert all((ROOT / path).exists() for path in config)
    assert manifest.pod["terminationGracePeriodSeconds"] >= 30
