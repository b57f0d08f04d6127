"""The files in ops/ fit the gateway, its defaults and each other.

What only their own programs can say is in tests/production and tests/manifests.
"""

import configparser
import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ingest import metrics
from ingest.settings import Settings
from tests.support.deployment import (
    COMPOSE,
    KUBERNETES,
    OPS,
    SYSTEMD,
    admin_port,
    documents,
    drain_seconds,
    image_environment,
    instructions,
    kubernetes_object,
    pairs,
    resolved,
    seconds,
    unit,
)
from tests.support.gateway import ROOT

DEFAULTS = Settings()
PROBES = {"startupProbe": "/startupz", "livenessProbe": "/livez", "readinessProbe": "/readyz"}


def pod() -> dict:  # type: ignore[type-arg]
    return kubernetes_object("StatefulSet")["spec"]["template"]["spec"]


def container() -> dict:  # type: ignore[type-arg]
    (only,) = pod()["containers"]
    return only


# -- Dockerfile -----------------------------------------------------------------------------


def test_the_image_runs_as_a_user_by_number_with_settings_that_are_ones() -> None:
    last = [name for name, _ in instructions()]
    assert last.count("FROM") == 2, "what builds must stay behind"
    given = dict(instructions())
    assert re.fullmatch(r"(\d+):\1", given["USER"]) and given["USER"] != "0:0"
    settings = resolved(image_environment())
    assert settings.data in given["VOLUME"]
    assert settings.bind.rpartition(":")[2] in given["EXPOSE"].split()


def test_the_image_checks_its_health_with_the_package_itself() -> None:
    given = dict(instructions())
    assert 'CMD ["python", "-m", "ingest", "health"]' in given["HEALTHCHECK"]
    assert given["ENTRYPOINT"] == '["python", "-m", "ingest"]'
    text = (OPS / "docker" / "Dockerfile").read_text()
    assert not re.search(r"curl|wget|apt-get", text)


def test_the_builder_gets_only_what_is_named() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    allowed = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from"):
            *sources, _ = rest.split()
            for source in sources:
                assert any(Path(source).match(pattern) for pattern in allowed), source
                assert (ROOT / source).exists()


def locked() -> dict[str, str]:
    text = (OPS / "docker" / "requirements.txt").read_text()
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def test_what_the_image_installs_is_named_by_version_and_hash_and_is_what_setup_cfg_wants() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = config["options"]["install_requires"].split("\n")
    wanted += config["options.extras_require"]["kafka"].split("\n")
    versions = locked()
    for line in filter(None, wanted):
        requirement = Requirement(line)
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"make lock: {line}, not {version}"
    for name in ("requirements.txt", "requirements-build.txt"):
        text = (OPS / "docker" / name).read_text()
        entries = re.findall(r"^\S+==(?:.*\\\n)*.*$", text, re.MULTILINE)
        assert entries and all("--hash=sha256:" in entry for entry in entries)
    (build,) = [rest for name, rest in instructions() if "--requirement" in rest]
    assert "--require-hashes" in build


# -- compose --------------------------------------------------------------------------------


def services() -> dict:  # type: ignore[type-arg]
    return yaml.safe_load(COMPOSE.read_text())["services"]


def test_compose_names_images_by_version_files_that_exist_and_ports_of_this_machine() -> None:
    assert set(services()) == {"ingest", "prometheus", "grafana"}
    for name, service in services().items():
        tag = service["image"].rpartition(":")[2]
        assert "/" not in tag and tag != "latest", service["image"]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} is published to everybody"
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (COMPOSE.parent / source).exists(), source


def test_grafana_in_compose_begins_with_the_shipped_dashboard() -> None:
    home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (OPS / "grafana" / Path(home).name).exists()


def test_compose_gives_nobody_more_than_it_needs() -> None:
    for service in services().values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"] and service["pids_limit"]
    assert services()["ingest"]["read_only"] is True


def test_compose_waits_for_the_gateway_to_end() -> None:
    service = services()["ingest"]
    settings = resolved({**image_environment(), **service["environment"]})
    assert seconds(service["stop_grace_period"]) > drain_seconds(settings)


def test_prometheus_in_compose_scrapes_the_admin_listener_and_reads_the_shipped_rules() -> None:
    config = yaml.safe_load((COMPOSE.parent / "prometheus.yml").read_text())
    targets = [
        target
        for job in config["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    ]
    assert f"ingest:{admin_port(services()['ingest']['environment'])}" in targets
    (pattern,) = config["rule_files"]
    rules = list((OPS / "prometheus").glob(pattern.removeprefix("/etc/prometheus/rules/")))
    assert rules
    for path in rules:
        assert "alert:" in path.read_text(), f"{path} has no alerts"


# -- Kubernetes -----------------------------------------------------------------------------


def test_the_pod_is_given_settings_that_are_ones_and_time_to_end() -> None:
    environ = {item["name"]: item["value"] for item in container()["env"]}
    file = (KUBERNETES / "base" / "ingest.yaml").read_text()
    settings = resolved({**image_environment(), **environ}, file)
    pause = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod()["terminationGracePeriodSeconds"] > pause + drain_seconds(settings)
    readiness = container()["readinessProbe"]
    assert settings.drain_delay_seconds > readiness["periodSeconds"] * readiness["failureThreshold"]
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert settings.bind.endswith(f":{ports['http']}")
    assert admin_port(environ) == str(ports["admin"])


def test_the_pod_and_the_container_have_the_memory_that_the_limits_may_take() -> None:
    """docs/limits.md, "Resident memory", for clients that take their answers."""
    needed = (
        (128 << 20)
        + DEFAULTS.connections_max * (24 << 10)
        + DEFAULTS.buffered_max_bytes * 5 // 4
        + DEFAULTS.journal_pending_max_bytes * 2
    )
    resources = container()["resources"]
    assert resources["limits"]["memory"] == resources["requests"]["memory"] == "1Gi"
    assert services()["ingest"]["mem_limit"] == "1g"
    assert needed < 1 << 30


def test_the_pod_s_journal_is_on_a_volume_of_its_own_that_outlives_it() -> None:
    spec = kubernetes_object("StatefulSet")["spec"]
    environ = {item["name"]: item["value"] for item in container()["env"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    assert [claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]] == ["data"]
    # Below the mount, whose own mode the cluster decides.
    assert Path(environ["INGEST_DATA"]).parent == Path(mounts["data"])
    assert set(spec["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}


@pytest.mark.parametrize(("probe", "path"), PROBES.items())
def test_each_probe_asks_for_what_it_is_about(probe: str, path: str) -> None:
    assert container()[probe]["httpGet"] == {"path": path, "port": "admin"}


def test_the_pod_keeps_to_the_restricted_profile_of_kubernetes() -> None:
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    context = pod()["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    user = dict(instructions())["USER"].split(":")[0]
    assert {str(context[key]) for key in ("runAsUser", "runAsGroup", "fsGroup")} == {user}
    assert pod()["automountServiceAccountToken"] is False


def test_instances_are_added_by_a_metric_that_there_is() -> None:
    spec = kubernetes_object("HorizontalPodAutoscaler")["spec"]
    (queue,) = [metric["pods"] for metric in spec["metrics"] if metric["type"] == "Pods"]
    name = queue["metric"]["name"]
    assert name in {family.name for family in metrics.CATALOGUE}
    rules = yaml.safe_load((KUBERNETES / "components/autoscaling/adapter-values.yaml").read_text())
    (rule,) = rules["rules"]["custom"]
    assert rule["name"]["as"] == name and rule["seriesQuery"].startswith(name + "{")


def test_every_file_of_kubernetes_is_part_of_a_kustomization() -> None:
    aside = {"adapter-values.yaml", "ingest.yaml"}
    for kustomization in KUBERNETES.rglob("kustomization.yaml"):
        named = yaml.safe_load(kustomization.read_text())
        for path in (*named.get("resources", []), *named.get("components", [])):
            assert (kustomization.parent / path).exists(), path
        others = {path.name for path in kustomization.parent.glob("*.yaml")} - aside
        assert others - {"kustomization.yaml"} <= set(named.get("resources", []))
    assert len(documents(KUBERNETES)) > 8


# -- systemd --------------------------------------------------------------------------------


def test_systemd_waits_for_the_gateway_to_start_and_to_end() -> None:
    service = unit("ingest.service")
    settings = resolved(pairs(service["Environment"][:1]))
    assert seconds(service["TimeoutStopSec"][0]) > drain_seconds(settings)
    assert seconds(service["TimeoutStartSec"][0]) >= 600
    assert settings.data == f"/var/lib/{service['StateDirectory'][0]}"
    assert service["StateDirectoryMode"] == ["0750"]


def test_systemd_listens_where_the_gateway_would_and_as_it_would() -> None:
    socket = unit("ingest.socket")
    assert socket["Backlog"] == [str(DEFAULTS.backlog)]
    assert socket["ListenStream"][0].endswith(":8080")
    users = (SYSTEMD / "ingest.sysusers").read_text()
    assert f"u {unit('ingest.service')['User'][0]} " in users


# -- proxies --------------------------------------------------------------------------------


def test_haproxy_s_limits_and_times_fit_the_gateway_s() -> None:
    text = (OPS / "haproxy" / "haproxy.cfg").read_text()

    def found(pattern: str) -> str:
        match = re.search(pattern, text, re.MULTILINE)
        assert match is not None, pattern
        return match[1]

    body = found(r"content-length\) gt (\d+)")
    assert int(body) == DEFAULTS.request_body_max_bytes
    assert int(found(r"tune\.bufsize (\d+)")) > DEFAULTS.headers_max_bytes + 1024
    assert int(found(r"tune\.http\.maxhdr (\d+)")) >= DEFAULTS.header_count_max
    assert seconds(found(r"timeout http-request (\S+)")) == DEFAULTS.header_timeout_seconds
    slowest = max(DEFAULTS.handler_timeout_seconds, DEFAULTS.journal_wait_max_seconds)
    assert seconds(found(r"timeout server (\S+)")) > slowest
    assert seconds(found(r"pool-purge-delay (\S+)")) < DEFAULTS.idle_timeout_seconds
    assert "uri /readyz" in text


def test_nginx_s_limits_and_times_fit_the_gateway_s() -> None:
    text = (OPS / "nginx" / "nginx.conf").read_text()
    upstream = text[text.index("upstream") : text.index("server {")]

    def found(name: str, where: str = text) -> str:
        match = re.search(rf"^\s*{name} ([^;]+);", where, re.MULTILINE)
        assert match is not None, name
        return match[1]

    assert found("client_max_body_size") == f"{DEFAULTS.request_body_max_bytes >> 20}m"
    number, size = found("large_client_header_buffers").split()
    assert int(size[:-1]) << 10 == DEFAULTS.request_line_max_bytes
    assert int(number) * (int(size[:-1]) << 10) == DEFAULTS.headers_max_bytes
    assert seconds(found("client_header_timeout")) == DEFAULTS.header_timeout_seconds
    assert seconds(found("keepalive_timeout", upstream)) < DEFAULTS.idle_timeout_seconds
    slowest = max(DEFAULTS.handler_timeout_seconds, DEFAULTS.journal_wait_max_seconds)
    assert seconds(found("proxy_read_timeout")) > slowest
    assert "non_idempotent" not in found("proxy_next_upstream")
