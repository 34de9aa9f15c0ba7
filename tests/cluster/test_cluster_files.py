"""Are the shipped cluster files what Ray and KubeRay accept, and do they open nothing to the world?"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray._private.label_utils import validate_node_label_syntax, validate_node_labels
from ray.autoscaler._private.util import prepare_config, validate_config

from engine.recipes import Plan, apply_overrides, load_recipe

PROJECT = Path(__file__).resolve().parents[2]
CLOUD = PROJECT / "cluster.yaml"
LOCAL = PROJECT / "experiments/clusters/local.yaml"
JOB = PROJECT / "experiments/clusters/rayjob.yaml"
FILES = (CLOUD, LOCAL, JOB)
LAUNCHED = (CLOUD, LOCAL)

# Field names of ray.io/v1, from KubeRay's rayjob_types.go and raycluster_types.go and its API reference, and those of
# Kubernetes itself that a pod of ours can have.
FIELDS = {
    "RayJobSpec": """activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint entrypointNumCpus
        entrypointNumGpus entrypointResources jobId managedBy metadata rayClusterSpec runtimeEnvYAML
        shutdownAfterJobFinishes submissionMode submitterConfig submitterPodTemplate suspend ttlSecondsAfterFinished""",
    "RayClusterSpec": """authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec
        headServiceAnnotations managedBy rayVersion suspend workerGroupSpecs""",
    "AuthOptions": "enableK8sTokenAuth mode secretName",
    "HeadGroupSpec": "enableIngress headService rayStartParams serviceType template",
    "WorkerGroupSpec": """groupName idleTimeoutSeconds maxReplicas minReplicas numOfHosts rayStartParams replicas
        scaleStrategy suspend template""",
    "PodTemplateSpec": "metadata spec",
    "PodSpec": "containers imagePullSecrets nodeSelector securityContext tolerations volumes",
    "Container": "env image imagePullPolicy name resources securityContext volumeMounts",
}


def filled_in(security_group: str = "sg-0123456789abcdef0", image: str = "ami-0123456789abcdef0") -> Any:
    """Return cluster.yaml as a user completes it: with a word behind each of the two anchors."""
    text = CLOUD.read_text()
    for anchor, value in (("security_group", security_group), ("image", image)):
        text, number = re.subn(rf"&{anchor}$", f"&{anchor} {value}", text, flags=re.MULTILINE)
        assert number == 1
    return yaml.safe_load(text)


def accepted(config: Any) -> Any:
    """Return what Ray makes of a cluster's file; raise what it finds wrong with it."""
    prepared = prepare_config(config)
    validate_config(prepared)
    return prepared


def scalars(value: Any) -> Iterator[str]:
    """Yield every key and value in a file, as text."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield str(key)
            yield from scalars(part)
    elif isinstance(value, list):
        for part in value:
            yield from scalars(part)
    else:
        yield str(value)


def start_commands(config: Any) -> list[str]:
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    return [command for command in commands if "ray start" in command]


def test_the_cloud_file_is_refused_until_it_is_filled_in() -> None:
    with pytest.raises(jsonschema.ValidationError, match="None is not of type 'string'") as refusal:
        accepted(yaml.safe_load(CLOUD.read_text()))
    assert "['labels']['security-group']" in str(refusal.value)
    with pytest.raises(jsonschema.ValidationError, match=r"\['labels'\]\['image'\]"):
        config = filled_in()
        config["available_node_types"]["head"]["labels"]["image"] = None
        accepted(config)


def test_the_cloud_file_is_accepted_when_filled_in() -> None:
    prepared = accepted(filled_in())
    head, worker = (prepared["available_node_types"][name] for name in ("head", "worker"))
    assert (worker["min_workers"], worker["max_workers"]) == (0, prepared["max_workers"])
    assert head["max_workers"] == 0
    assert any("autoscaling-config" in command for command in prepared["head_start_ray_commands"])
    validate_node_labels(head["labels"])
    validate_node_label_syntax(head["labels"])


def test_every_machine_in_the_cloud_is_in_the_users_own_security_group() -> None:
    config = filled_in(security_group="sg-0a", image="ami-0b")
    for name, node_type in config["available_node_types"].items():
        assert node_type["node_config"]["SecurityGroupIds"] == ["sg-0a"], name
        assert node_type["node_config"]["ImageId"] == "ami-0b", name
    assert "security_group" not in config["provider"]


def test_the_local_file_is_accepted_as_it_is() -> None:
    prepared = accepted(yaml.safe_load(LOCAL.read_text()))
    (node_type,) = prepared["available_node_types"].values()
    assert node_type["min_workers"] == len(prepared["provider"]["worker_ips"])
    head = next(command for command in prepared["head_start_ray_commands"] if "ray start" in command)
    assert f"--node-ip-address={prepared['provider']['head_ip']} " in head
    assert "RAY_enable_autoscaler_v2=0 " in head


@pytest.mark.parametrize("path", LAUNCHED, ids=lambda path: path.name)
@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"workers": 3}, "workers"), ({"auth": {"password": "x"}}, "password"), ({"idle_timeout_minutes": "ten"}, "ten")],
)
def test_what_ray_refuses_would_be_seen(path: Path, wrong: dict[str, Any], named: str) -> None:
    config = filled_in() if path == CLOUD else yaml.safe_load(path.read_text())
    with pytest.raises(jsonschema.ValidationError, match=f"'{named}'"):
        accepted({**config, **wrong})


@pytest.mark.parametrize("path", LAUNCHED, ids=lambda path: path.name)
def test_tokens_are_demanded_the_dashboard_is_on_loopback_and_learners_are_not_nice(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    commands = start_commands(config)
    assert len(commands) == 2
    assert all("RAY_AUTH_MODE=token " in command for command in commands)
    assert all("RAY_worker_niceness=0 " in command for command in commands)
    assert sum("--head" in command for command in commands) == 1
    for command in commands:
        words = shlex.split(command)
        assert ("--dashboard-host=127.0.0.1" in words) == ("--head" in words)
    token = [local for remote, local in config["file_mounts"].items() if remote.endswith(".ray/auth_token")]
    assert token == ["~/.ray/auth_token"]


@pytest.mark.parametrize("path", LAUNCHED, ids=lambda path: path.name)
def test_what_is_copied_suffices_for_the_installation_and_is_no_more(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    sources = {local for local in config["file_mounts"].values() if not local.startswith("~")}
    stated = {"engine", "experiments", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    assert sources == stated
    assert all((PROJECT / source).exists() for source in sources)
    assert any("--constraint constraints.txt" in command for command in config["setup_commands"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_is_open_to_the_world_and_nothing_is_secret(path: Path) -> None:
    for text in scalars(yaml.safe_load(path.read_text())):
        assert "0.0.0.0" not in text
        assert "::/0" not in text
        assert not re.search(r"AKIA|BEGIN .*KEY|aws_secret|password|hf_|ghp_", text)
        # A token or a key would be one long word; paths and field names have marks between their parts.
        assert not re.search(r"\b[0-9a-fA-F]{32,}\b", text)
        assert "RAY_AUTH_TOKEN=" not in text


def unknown(part: Any, kind: str) -> set[str]:
    """Return the fields that a part of the job has and that its kind does not know."""
    return set(part) - set(FIELDS[kind].split())


def test_the_kubernetes_job_has_fields_that_kuberay_knows() -> None:
    job = yaml.safe_load(JOB.read_text())
    assert set(job) == {"apiVersion", "kind", "metadata", "spec"}
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert unknown(job["spec"], "RayJobSpec") == set()
    cluster = job["spec"]["rayClusterSpec"]
    assert unknown(cluster, "RayClusterSpec") == set()
    assert unknown(cluster["authOptions"], "AuthOptions") == set()
    assert unknown(cluster["headGroupSpec"], "HeadGroupSpec") == set()
    pods = [cluster["headGroupSpec"]["template"]]
    for group in cluster["workerGroupSpecs"]:
        assert unknown(group, "WorkerGroupSpec") == set()
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        pods.append(group["template"])
    for pod in pods:
        assert unknown(pod, "PodTemplateSpec") == set()
        assert unknown(pod["spec"], "PodSpec") == set()
        for container in pod["spec"]["containers"]:
            assert unknown(container, "Container") == set()
            mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
            assert mounted <= {volume["name"] for volume in pod["spec"].get("volumes", ())}


def test_a_field_that_kuberay_does_not_know_would_be_seen() -> None:
    assert unknown({"entrypoint": "", "entryPoint": ""}, "RayJobSpec") == {"entryPoint"}


def test_the_kubernetes_job_demands_tokens_and_stays_inside() -> None:
    cluster = yaml.safe_load(JOB.read_text())["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_the_kubernetes_job_trains_a_shipped_recipe_on_as_many_gpus_as_there_are() -> None:
    spec = yaml.safe_load(JOB.read_text())["spec"]
    program, command, recipe, *words = shlex.split(spec["entrypoint"])
    assert (program, command) == ("local-learning", "train")
    assert words[-4:-1] == ["--address", "auto", "--run-dir"]
    recipe_of_job, plan = apply_overrides(load_recipe(recipe), Plan(address="auto"), words[:-4])
    cluster = spec["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    groups = [(1, cluster["headGroupSpec"]), (workers["replicas"], workers)]
    gpus = sum(
        number * int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
        for number, group in groups
    )
    assert recipe_of_job.method.num_segments * plan.gpus_per_learner == gpus
    assert cluster["rayVersion"] == ray.__version__


def test_all_files_pin_the_same_ray() -> None:
    pinned = re.search(r"^ray==(.+)$", (PROJECT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert yaml.safe_load(JOB.read_text())["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]
    assert f"rayproject/ray:{pinned[1]}-" in JOB.read_text()
