"""The compose file as it is written: what it starts is held to the code, to the image and to the chart."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from streams.watch.health import Health, HealthServer
from tests.deploy.command_line import ROOT, command_of, not_settings, settings_of
from tests.deploy.composed import FILE, FOLDER, OURS, SERVED, SERVICES, binds, ports, stores, variables
from tests.deploy.dockerfile import STAGES, instructions

SETTINGS = FOLDER / "reptide.toml"
CHART = ROOT / "deploy/helm/reptide"
DEMO = ROOT / "streams/demo/flights.toml"
PROMETHEUS = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
ONE_SHOT = {"topics", "flights"}

every_service = pytest.mark.parametrize("name", SERVICES)
every_one_of_ours = pytest.mark.parametrize("name", OURS)


@every_service
def test_every_image_has_a_version(name: str) -> None:
    assert re.search(r":v?\d+\.\d+\.\d+(-alpine)?$", SERVICES[name]["image"])


def test_the_images_are_of_the_versions_that_the_rest_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {SERVICES[name]["image"].partition(":")[2] for name in OURS} == {project["version"]}
    tested = (ROOT / "tests/apache/pom.xml").read_text(encoding="utf-8")
    (version,) = re.findall(r"<artifactId>kafka_2\.13</artifactId>\s*<version>(.+?)</version>", tested)
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{version}"


def test_each_image_of_ours_is_built_by_one_service_and_asked_of_no_registry() -> None:
    builds = [
        (SERVICES[name]["image"], SERVICES[name]["build"]) for name in OURS if "build" in SERVICES[name]
    ]
    assert sorted(image for image, _ in builds) == sorted({SERVICES[name]["image"] for name in OURS})
    for _, build in builds:
        assert (FOLDER / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]).is_file()
        assert build.get("target", "") in STAGES
    assert {SERVICES[name]["pull_policy"] for name in OURS} == {"never"}


@every_service
def test_nothing_is_root_or_may_become_it(name: str) -> None:
    service = SERVICES[name]
    assert "privileged" not in service
    assert service["user"].split(":")[0] not in ("", "0", "root")
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@every_one_of_ours
def test_ours_write_nowhere(name: str) -> None:
    assert SERVICES[name]["read_only"] is True
    assert stores(name) == {}


@every_service
def test_what_is_mounted_is_there_and_is_not_written_to(name: str) -> None:
    mounted = [mount for mount in SERVICES[name].get("volumes", []) if mount[0] == "."]
    assert len(binds(name)) == len(mounted)
    assert all(path.is_file() for path in binds(name).values())


def test_what_must_outlive_a_container_is_on_a_volume() -> None:
    assert {name: list(stores(name)) for name in SERVICES if stores(name)} == {
        "kafka": [SERVICES["kafka"]["environment"]["KAFKA_LOG_DIRS"]],
        "redis": [option_of("redis", "--dir")],
        "prometheus": [flag_of("prometheus", "--storage.tsdb.path")],
        "grafana": ["/var/lib/grafana"],
    }
    assert {volume for name in SERVICES for volume in stores(name).values()} == FILE["volumes"].keys()


@every_service
def test_what_ends_is_started_again_and_what_is_done_is_not(name: str) -> None:
    expected = {"topics": "on-failure:6", "flights": "no"}
    assert SERVICES[name]["restart"] == expected.get(name, "unless-stopped")


@every_service
def test_each_waits_for_what_it_needs_to_be_there(name: str) -> None:
    for other, waits in SERVICES[name].get("depends_on", {}).items():
        condition = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
        assert waits == {"condition": condition}
        assert ("test" in SERVICES[other]["healthcheck"]) == (other not in ONE_SHOT)


def test_nobody_outside_the_machine_reaches_it_and_it_holds_no_secret() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8") + SETTINGS.read_text(encoding="utf-8")
    assert not re.search(r"(?i)(password|secret|token|key)\w*\s*[:=]|://[^/\s]*@", text)


def test_ours_run_commands_with_options_that_they_have() -> None:
    ran = {name: " ".join(command_of(SERVICES[name]["command"])) for name in OURS}
    workers = dict.fromkeys(("worker-1", "worker-2"), "worker")
    assert ran == workers | {"trainer": "trainer", "topics": "topics create", "flights": "produce"}


@every_one_of_ours
def test_ours_read_settings_that_are_accepted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mounted,) = binds(name)
    (folder,) = instructions("WORKDIR", STAGES["reptide"].splitlines())
    assert mounted == f"{folder}/{next(one for one in SERVICES[name]['command'] if one.endswith('.toml'))}"
    assert binds(name)[mounted] == SETTINGS
    assert not_settings(variables(name)) == []
    settings = settings_of(SETTINGS.read_text(encoding="utf-8"), variables(name), tmp_path, monkeypatch)
    assert settings.service.host == "0.0.0.0"  # noqa: S104 - of a container
    assert ports(name) <= {str(settings.service.port)}


def test_its_settings_are_those_of_the_demonstration_with_kafka_and_redis() -> None:
    ours, demo = (tomllib.loads(path.read_text(encoding="utf-8")) for path in (SETTINGS, DEMO))
    for name in ("stream", "kafka", "redis", "service"):
        assert ours.pop(name)
    del demo["run"], demo["input"]["path"], ours["input"]["path"]
    assert ours == demo


def test_every_address_is_a_service_and_a_port_on_which_it_is_reached() -> None:
    grafana = (FOLDER / "grafana/datasource.yml").read_text(encoding="utf-8")
    given = [json.dumps(one.get("environment", {})) for one in SERVICES.values()]
    texts = [SETTINGS.read_text(encoding="utf-8"), json.dumps(PROMETHEUS), grafana, *given]
    asked = set(re.findall(r'(?:["/@])([a-z][\w-]*):(\d{4,5})\b', " ".join(texts)))
    controller = {("kafka", "9093")}  # asked by the broker itself alone
    assert asked - controller == {(name, port) for name in SERVICES for port in ports(name)} - {
        ("grafana", "3000")
    }


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize(("bound_s", "status"), [(60.0, 0), (-1.0, 1)])
def test_the_health_check_of_ours_asks_whether_they_are_ready(name: str, bound_s: float, status: int) -> None:
    _, program, *arguments, script = SERVICES[name]["healthcheck"]["test"]
    assert program == "python"
    with HealthServer(Health((), bound_s), lambda: b"", 0) as server:
        asked = script.replace(
            f"//localhost:{variables(name)['REPTIDE_SERVICE__PORT']}/readyz",
            f"//localhost:{server.port}/readyz",
        )
        assert asked != script
        done = subprocess.run([sys.executable, "-I", *arguments, asked], capture_output=True, check=False)
    assert done.returncode == status, done.stderr


@pytest.mark.parametrize("name", ["kafka", "redis", "prometheus", "grafana"])
def test_the_health_check_of_a_server_asks_on_a_port_that_it_serves(name: str) -> None:
    program, *arguments = SERVICES[name]["healthcheck"]["test"][1:]
    assert program
    assert set(re.findall(r"\b\d{4,5}\b", " ".join(arguments))) == ports(name)


def test_every_process_with_metrics_is_scraped_under_the_job_that_the_alerts_watch() -> None:
    scraped = {
        target: job["job_name"]
        for job in PROMETHEUS["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    }
    assert scraped == {f"{name}:9464": f"reptide-{SERVICES[name]['command'][0]}" for name in SERVED}
    mounted = binds("prometheus")
    assert mounted["/etc/prometheus/rules.yml"] == ROOT / "deploy/prometheus/rules.yml"
    assert PROMETHEUS["rule_files"] == ["rules.yml"]
    assert flag_of("prometheus", "--config.file") == "/etc/prometheus/prometheus.yml" in mounted


def test_grafana_finds_its_data_source_and_the_dashboard() -> None:
    mounted = {path: target for target, path in binds("grafana").items()}
    board = mounted[ROOT / "deploy/grafana/reptide.json"]
    provider = yaml.safe_load((FOLDER / "grafana/dashboard.yml").read_text(encoding="utf-8"))["providers"][0]
    assert str(Path(board).parent) == provider["options"]["path"]
    assert SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == board
    for kind in ("datasource", "dashboard"):
        assert mounted[FOLDER / f"grafana/{kind}.yml"].startswith(f"/etc/grafana/provisioning/{kind}s/")


def test_redis_loses_no_more_than_the_settings_wait_for() -> None:
    assert option_of("redis", "--appendonly") == "yes"
    assert option_of("redis", "--appendfsync") == "everysec"
    assert option_of("redis", "--maxmemory-policy") == "noeviction"
    assert tomllib.loads(SETTINGS.read_text(encoding="utf-8"))["service"]["durability_lag_s"] == 2.0


def test_it_says_what_the_chart_says() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    helpers = (CHART / "templates/_helpers.tpl").read_text(encoding="utf-8")
    assert len([name for name in OURS if name.startswith("worker")]) == values["worker"]["replicas"]
    assert option_of("topics", "--partitions") == str(values["topics"]["partitions"])
    for name in SERVED:
        role = SERVICES[name]["command"][0]
        assert f"{SERVICES[name]['mem_limit']}i" == values[role]["resources"]["limits"]["memory"].lower()
        assert SERVICES[name]["user"] == "10001:10001"
        assert f"containerPort: {variables(name)['REPTIDE_SERVICE__PORT']}" in helpers
        assert SERVICES[name]["stop_grace_period"] == f"{values['worker']['terminationGracePeriodSeconds']}s"


@pytest.mark.parametrize("target", ["up", "down"])
def test_without_a_container_engine_that_is_said_in_a_sentence(target: str, tmp_path: Path) -> None:
    make = shutil.which("make")
    assert make is not None
    (tmp_path / "sh").symlink_to("/bin/sh")
    done = subprocess.run(
        [make, "--silent", target, "SHELL=/bin/sh"],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "no container engine" in done.stderr.splitlines()[0]


def option_of(name: str, option: str) -> str:
    """What follows an option on the command line."""
    command = SERVICES[name]["command"]
    return str(command[command.index(option) + 1])


def flag_of(name: str, flag: str) -> str:
    """What a flag is set to on the command line."""
    (value,) = [str(one.partition("=")[2]) for one in SERVICES[name]["command"] if one.startswith(f"{flag}=")]
    return value
