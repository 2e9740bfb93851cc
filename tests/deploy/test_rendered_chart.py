"""The chart as Helm renders it, offline: each pod runs what the code knows, under what Kubernetes knows.

`make check-deploy` installs Helm's engine and the schemas of Kubernetes, and runs these.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml

from streams.watch.health import Health, HealthServer
from tests.deploy.command_line import ROOT, command_of, example, not_settings, settings_of

helm = pytest.importorskip("helm_python.chart", reason="`make check-deploy` installs helm-python-sdk")
schemas = pytest.importorskip(
    "kubernetes_validate", reason="`make check-deploy` installs kubernetes-validate"
)

PATH = ROOT / "deploy/helm/reptide"
CHART = helm.Chart.load(str(PATH))
SECRET = {"REPTIDE_REDIS__URL": {"name": "shop-redis", "key": "url"}}
PLAIN = {"settings": example(), "secretEnv": SECRET}
FULL = {
    **PLAIN,
    "files": {"msk_token.py": "def signed(): ..."},
    "secretFiles": "shop-tls",
    "env": {"SSL_CERT_FILE": "/etc/reptide-secrets/ca.pem", "REPTIDE_SERVICE__READY_LAG": "50000"},
    "image": {"repository": "registry/reptide", "tag": "0.1.0-cuda", "pullSecrets": ["registry"]},
    "worker": {
        "device": "cuda",
        "nodeSelector": {"nvidia.com/gpu.present": "true"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    },
    "keda": {
        "enabled": True,
        "consumerGroup": "shop-1",
        "bootstrapServers": "kafka-1:9092",
        "inputs": ["shop-events"],
        "authentication": "keda-kafka",
    },
    "networkPolicy": {
        "metricsFrom": [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        ],
        "egress": [{"ports": [{"protocol": "TCP", "port": 443}]}],
    },
    "podMonitor": {"enabled": True},
}
OF_OPERATORS = {"ScaledObject", "PodMonitor"}
"""Kinds that Kubernetes does not know by itself."""

both = pytest.mark.parametrize("values", [PLAIN, FULL], ids=["plain", "full"])


def rendered(values: dict[str, Any], release: str = "shop") -> dict[str, dict[str, Any]]:
    """The documents, by kind and name without the release's."""
    texts = CHART.render(values, name=release).values()
    documents = [one for text in texts for one in yaml.safe_load_all(text) if one]
    return {f"{one['kind']} {one['metadata']['name'].removeprefix(release + '-')}": one for one in documents}


def pods(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The spec of each pod, by the component."""
    return {
        one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"][
            "spec"
        ]
        for one in rendered(values).values()
        if "template" in one["spec" if "spec" in one else "metadata"]
    }


def variables(container: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "redis://of-the-secret:6379/0") for one in container["env"]}


def test_helm_finds_nothing_wrong_with_it() -> None:
    found = helm.lint(str(PATH), values=PLAIN)
    assert found["errors"] == []
    assert [one["error"] for one in found["messages"]] == ["icon is recommended"]


@both
@pytest.mark.parametrize("version", ["1.29.0", "1.37.0"])
def test_kubernetes_knows_every_field(values: dict[str, Any], version: str) -> None:
    for document in rendered(values).values():
        if document["kind"] not in OF_OPERATORS:
            schemas.validate(document, version, strict=True)


@both
def test_each_pod_runs_a_command_with_options_that_it_has(values: dict[str, Any]) -> None:
    ran = {name: command_of(pod["containers"][0]["args"]) for name, pod in pods(values).items()}
    assert ran == {"worker": ("worker",), "trainer": ("trainer",), "topics": ("topics", "create")}


@both
def test_each_pod_reads_settings_that_are_accepted(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = rendered(values)["ConfigMap settings"]["data"]["reptide.toml"]
    for name, pod in pods(values).items():
        (container,) = pod["containers"]
        assert container["args"][-5 if name == "topics" else -1] == "reptide.toml"
        mount = next(one["mountPath"] for one in container["volumeMounts"] if one["name"] == "settings")
        assert mount == container["workingDir"]
        assert not_settings(variables(container)) == []
        settings = settings_of(text, variables(container), tmp_path, monkeypatch)
        assert settings.redis
        assert settings.redis.url.get_secret_value() == "redis://of-the-secret:6379/0"
        device = values.get("worker", {}).get("device", "cpu") if name == "worker" else "cpu"
        assert settings.run.device == device
        monkeypatch.undo()


def test_a_role_has_its_own_secrets_and_none_of_the_others() -> None:
    password, files = "REPTIDE_KAFKA__SECURITY__SASL_PLAIN_PASSWORD", {"secretFiles": "shop-tls"}
    own: dict[str, dict[str, Any]] = {
        role: {"secretEnv": {password: {"name": f"kafka-of-{role}", "key": "password"}}}
        for role in ("worker", "trainer", "topics")
    }
    own["trainer"]["secretEnv"] |= {"REPTIDE_REDIS__URL": {"name": "redis-of-trainer", "key": "url"}}
    own["worker"] |= {"secretFiles": "tls-of-worker"}
    given = pods({**PLAIN, **files, **own})
    seen = {
        role: {
            one["valueFrom"]["secretKeyRef"]["name"]
            for one in pod["containers"][0]["env"]
            if "valueFrom" in one
        }
        | {one["secret"]["secretName"] for one in pod["volumes"] if "secret" in one}
        for role, pod in given.items()
    }
    assert seen == {
        "worker": {"shop-redis", "kafka-of-worker", "tls-of-worker"},
        "trainer": {"redis-of-trainer", "kafka-of-trainer", "shop-tls"},
        "topics": {"shop-redis", "kafka-of-topics", "shop-tls"},
    }


@both
def test_every_probe_asks_for_a_page_that_is_served_on_the_port_that_is_set(
    values: dict[str, Any],
) -> None:
    with HealthServer(Health((), 60.0), lambda: b"", 0) as server:
        for name, pod in pods(values).items():
            (container,) = pod["containers"]
            probes = {probe: container[probe] for probe in container if probe.endswith("Probe")}
            assert set(probes) == (
                set() if name == "topics" else {"startupProbe", "livenessProbe", "readinessProbe"}
            )
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
            for probe, asked in probes.items():
                assert ports[asked["httpGet"]["port"]] == int(variables(container)["REPTIDE_SERVICE__PORT"])
                path = asked["httpGet"]["path"]
                assert path == ("/readyz" if probe == "readinessProbe" else "/healthz")
                with urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
                    assert answer.status == 200


@both
def test_no_pod_is_root_writes_to_its_file_system_or_hears_of_services(
    values: dict[str, Any],
) -> None:
    for pod in pods(values).values():
        assert pod["enableServiceLinks"] is False
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert all(mount["readOnly"] for mount in container["volumeMounts"])
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_a_worker_on_a_gpu_asks_for_one_where_there_are_some() -> None:
    worker, trainer = pods(FULL)["worker"], pods(FULL)["trainer"]
    assert worker["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert worker["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert "nvidia.com/gpu" not in trainer["containers"][0]["resources"]["limits"]


def test_the_number_of_workers_is_the_charts_or_kedas() -> None:
    assert rendered(PLAIN)["Deployment worker"]["spec"]["replicas"] == 2
    full = rendered(FULL)
    assert "replicas" not in full["Deployment worker"]["spec"]
    scaled = full["ScaledObject worker"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == full["Deployment worker"]["metadata"]["name"]
    (trigger,) = scaled["triggers"]
    assert trigger["metadata"]["topic"] == "shop-events"
    assert trigger["metadata"]["lagThreshold"] == "20000"


def test_selectors_select_the_pods_that_they_are_meant_for() -> None:
    full = rendered(FULL)
    of_worker = full["Deployment worker"]["spec"]["template"]["metadata"]["labels"].items()
    of_job = full[next(name for name in full if name.startswith("Job"))]["spec"]["template"]["metadata"][
        "labels"
    ].items()
    budget = full["PodDisruptionBudget worker"]["spec"]["selector"]["matchLabels"].items()
    policy = full["NetworkPolicy network"]["spec"]["podSelector"]["matchLabels"].items()
    assert budget <= of_worker
    assert not budget <= of_job
    assert policy <= of_worker
    assert policy <= of_job


def test_metrics_are_scraped_under_the_names_that_the_alerts_watch() -> None:
    label = rendered(FULL)["PodMonitor metrics"]["spec"]["jobLabel"]
    jobs = {
        one["spec"]["template"]["metadata"]["labels"][label]
        for name, one in rendered(FULL).items()
        if name.startswith("Deployment")
    }
    watched = (ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8")
    assert jobs == set(re.findall(r"job_name: (\S+)", watched))


def test_other_topics_are_another_job_and_the_same_ones_the_same() -> None:
    def job(values: dict[Any, Any] | dict[str, Any]) -> str:
        return next(name for name in rendered(values) if name.startswith("Job"))

    assert job(PLAIN) == job({**PLAIN, "worker": {"replicas": 5}})
    assert job(PLAIN) != job({**PLAIN, "topics": {"partitions": 24}})


def test_changed_settings_start_new_pods_and_two_releases_share_no_name() -> None:
    def digest(values: dict[Any, Any] | dict[str, Any]) -> Any:
        return rendered(values)["Deployment worker"]["spec"]["template"]["metadata"]["annotations"]

    assert digest(PLAIN) != digest({**PLAIN, "settings": example() + "[inner]\nsteps = 3\n"})
    blue, green = (
        {(one["kind"], one["metadata"]["name"]) for one in rendered(PLAIN, release).values()}
        for release in ("shop-blue", "shop-green")
    )
    assert not blue & green


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "the settings file is required"),
        ({"settings": '[kafka.security]\nsasl_plain_password = "x"\n'}, "name it in secretEnv"),
        ({**PLAIN, "wroker": {}}, "wroker"),
        ({**PLAIN, "env": {"REPTIDE_SERVICE__PORT": "1"}}, "REPTIDE_SERVICE__PORT"),
        ({**PLAIN, "keda": {"enabled": True}}, "consumerGroup"),
    ],
)
def test_what_is_missing_misspelt_or_secret_is_refused_by_its_name(values: Any, said: str) -> None:
    with pytest.raises(Exception, match=said):
        CHART.validate_schema(values)
        CHART.render(values)
