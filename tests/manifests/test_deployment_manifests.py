"""The Kubernetes manifests and the compose file, as the tools that use them understand them."""

import copy
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.support.deployment import COMPOSE, KUBERNETES

#: The oldest and the newest version of Kubernetes that the manifests are for: `preStop.sleep` came
#: with the oldest.
VERSIONS = ["1.30", "1.37"]
#: Kinds of the Prometheus operator, which Kubernetes' own schemas do not know.
FOREIGN = {"ServiceMonitor"}
#: What reads the file in `docker compose`.
COMPOSE_GO = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2"

Object = dict[str, Any]


def rendered(directory: Path) -> list[Object]:
    done = subprocess.run(
        ["kubectl", "kustomize", str(directory)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower(), done.stderr
    return list(yaml.safe_load_all(done.stdout))


def one(objects: list[Object], kind: str, name: str = "ingest") -> Object:
    (found,) = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


@pytest.fixture(scope="module")
def production() -> list[Object]:
    return rendered(KUBERNETES / "overlays" / "production")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", ["base", "overlays/production"])
def test_every_object_is_one_that_kubernetes_knows(overlay: str, version: str) -> None:
    checked = 0
    for found in rendered(KUBERNETES / overlay):
        if found["kind"] not in FOREIGN:
            kubernetes_validate.validate(found, version, strict=True)
            checked += 1
    assert checked >= 7


def test_a_member_that_kubernetes_does_not_know_would_be_found(production: list[Object]) -> None:
    wrong = copy.deepcopy(one(production, "StatefulSet"))
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 90
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_selectors_find_the_pods_and_the_ports_that_they_name(production: list[Object]) -> None:
    template = one(production, "StatefulSet")["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    (container,) = template["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    for name in ("ingest", "ingest-pods"):
        service = one(production, "Service", name)["spec"]
        assert service["selector"].items() <= labels
        assert {port["targetPort"] for port in service["ports"]} <= ports
    assert one(production, "StatefulSet")["spec"]["serviceName"] == "ingest-pods"
    assert (
        one(production, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels
    )
    policy = one(production, "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels
    assert {p["port"] for rule in policy["ingress"] for p in rule["ports"]} <= ports
    monitor = one(production, "ServiceMonitor")["spec"]
    pods = one(production, "Service", "ingest-pods")
    assert monitor["selector"]["matchLabels"].items() <= pods["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] in {port["name"] for port in pods["spec"]["ports"]}


def test_volumes_that_are_mounted_are_there_and_settings_come_from_their_file(
    production: list[Object],
) -> None:
    spec = one(production, "StatefulSet")["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    there = {volume["name"] for volume in pod["volumes"]}
    there |= {claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == there
    (settings,) = [volume for volume in pod["volumes"] if volume["name"] == "settings"]
    file = one(production, "ConfigMap", settings["configMap"]["name"])
    environ = {item["name"]: item["value"] for item in container["env"]}
    assert Path(environ["INGEST_CONFIG"]).name in file["data"]


def test_tls_comes_from_a_secret_and_probes_stay_plain(tmp_path: Path) -> None:
    parts = [KUBERNETES / "base", KUBERNETES / "components" / "tls"]
    base, tls = (os.path.relpath(part.resolve(), tmp_path.resolve()) for part in parts)
    (tmp_path / "kustomization.yaml").write_text(
        json.dumps({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
            "resources": [base], "components": [tls],
        })
    )  # fmt: skip
    objects = rendered(tmp_path)
    for found in objects:
        kubernetes_validate.validate(found, VERSIONS[0], strict=True)
    pod = one(objects, "StatefulSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environ = {item["name"]: item["value"] for item in container["env"]}
    (mount,) = [m for m in container["volumeMounts"] if m["name"] == "tls"]
    (volume,) = [v for v in pod["volumes"] if v["name"] == "tls"]
    for name, file in (("INGEST_TLS_CERT", "tls.crt"), ("INGEST_TLS_KEY", "tls.key")):
        assert environ[name] == f"{mount['mountPath']}/{file}"
    assert volume["secret"] == {"secretName": "ingest-tls", "defaultMode": 0o440}
    assert container["readinessProbe"]["httpGet"]["port"] == "admin"


def test_the_autoscaler_alone_decides_on_the_number_of_instances(production: list[Object]) -> None:
    assert "replicas" not in one(production, "StatefulSet")["spec"]
    target = one(production, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("StatefulSet", "ingest")


def test_compose_understands_its_file() -> None:
    command = ["go", "run", COMPOSE_GO, "-format", "json"]
    done = subprocess.run([*command, str(COMPOSE)], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    assert services["prometheus"]["depends_on"]["ingest"]["condition"] == "service_healthy"
    both = [str(COMPOSE), str(COMPOSE.with_name("kafka.yaml"))]
    done = subprocess.run([*command, *both], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    with_kafka = json.loads(done.stdout)["services"]
    assert with_kafka["ingest"]["depends_on"]["kafka"]["condition"] == "service_healthy"
    assert set(with_kafka) == {*services, "kafka"}
    wrong = COMPOSE.read_text().replace("mem_limit:", "memory_limit:")
    again = subprocess.run(
        [*command, "/dev/stdin"], input=wrong, capture_output=True, text=True, timeout=110
    )
    assert again.returncode != 0, "it reads nothing"
