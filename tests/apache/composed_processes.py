"""What deploy/compose/compose.yaml starts in containers, started as processes of this machine, by its very words.

Commands, variables, health checks and mounted files are those of the file. Only what a container has to itself is
replaced: a host name and port by a free port here, and a path by the same path under a folder of the service.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from streams.testing.servers import free_port
from tests.deploy.composed import SERVICES, binds, ports, stores, variables
from tests.kafka_brokers import JARS, ROOT

DEADLINE_S = 90.0
LOOK_S = 0.5
CONTROLLER = ("kafka", "9093")
JAVA = ("java", "-XX:TieredStopAtLevel=1", "-cp", f"{JARS}/*")
PROGRAMS: dict[str, Sequence[str]] = {
    "python": (sys.executable,),
    "reptide": (sys.executable, "-m", "streams.cli"),
    "/opt/kafka/bin/kafka-broker-api-versions.sh": (*JAVA, "org.apache.kafka.tools.BrokerApiVersionsCommand"),
}
"""What a program of an image is here, where it is not one of the same name."""
ENTRIES: dict[str, list[str]] = {"redis": [], "prometheus": ["prometheus"]}
"""What an image puts before the command; ours is `reptide`."""
OF_THE_IMAGE = ("PATH", "NUMBA_CPU_NAME", "TORCHINDUCTOR_CACHE_DIR")
"""Variables that speak of the image's own files."""
LOGGING = "Configuration: {Appenders: {Console: {name: out}}, Loggers: {Root: {level: info}, Logger: []}}\n"


class Composed:
    """The services that were started, by name; all of them end with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        known = {(name, port) for name in SERVICES for port in ports(name)} | {CONTROLLER}
        self._ports = {place: free_port() for place in sorted(known)}
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def address(self, name: str, port: str) -> str:
        """Where a port of a service is here."""
        return f"127.0.0.1:{self._ports[name, port]}"

    def up(self, name: str) -> None:
        """Start a service when what it depends on is as it asks for; do nothing where it was started before."""
        if name in self.running:
            return
        needed = SERVICES[name].get("depends_on", {})
        for other in needed:
            self.up(other)
        for other, waits in needed.items():
            if waits["condition"] == "service_completed_successfully":
                self.completed(other)
            else:
                self.healthy(other)
        self._mount(name)
        with self._said(name).open("wb") as said:
            self.running[name] = subprocess.Popen(
                self._command(name),
                cwd=self._workplace(name),
                env=self._environment(name),
                stdout=said,
                stderr=said,
            )

    def again(self, name: str) -> None:
        """Start a service that was completed once more."""
        self.completed(name)
        del self.running[name]
        self.up(name)

    def completed(self, name: str) -> None:
        """Wait until a service has done what it was to do."""
        assert self.running[name].wait(DEADLINE_S) == 0, self._said(name).read_text()

    def healthy(self, name: str) -> None:
        """Wait until a service's health check passes."""
        check = self._here(name, SERVICES[name]["healthcheck"]["test"][1:])
        deadline = time.monotonic() + DEADLINE_S
        while (done := self._run(name, check)).returncode:
            assert self.running[name].poll() is None, self._said(name).read_text()
            assert time.monotonic() < deadline, (name, done.stderr, self._said(name).read_text()[-3000:])
            time.sleep(LOOK_S)

    def stop(self, name: str) -> int:
        """End a service as `docker stop` does; its exit status."""
        self.running[name].terminate()
        return self.running.pop(name).wait(DEADLINE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()

    def path(self, name: str, inside: str) -> Path:
        """Where a path of a service's container is here."""
        return self.folder / name / inside.removeprefix("/")

    def _said(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _workplace(self, name: str) -> Path:
        """Of ours, the folder of the settings, as in the image."""
        mounted = next(iter(binds(name)), "/")
        return self.path(name, str(Path(mounted).parent))

    def _mount(self, name: str) -> None:
        for inside, path in binds(name).items():
            here = self.path(name, inside)
            here.parent.mkdir(parents=True, exist_ok=True)
            here.write_text(self._translated(name, path.read_text(encoding="utf-8")), encoding="utf-8")
        for inside in [*stores(name), "/"]:
            self.path(name, inside).mkdir(parents=True, exist_ok=True)

    def _command(self, name: str) -> list[str]:
        if name == "kafka":
            return self._configured_kafka()
        return self._here(name, [*ENTRIES.get(name, ["reptide"]), *SERVICES[name]["command"]])

    def _configured_kafka(self) -> list[str]:
        """As the image does it, by its program: variables become server.properties, and storage is formatted."""
        defaults, mounted, final = (
            self.path("kafka", at) for at in ("/defaults", "/mounted", "/opt/kafka/config")
        )
        for folder in (defaults, mounted, final):
            folder.mkdir(parents=True, exist_ok=True)
        for name in ("log4j2.yaml", "tools-log4j2.yaml"):
            (defaults / name).write_text(LOGGING)
        (defaults / "server.properties").write_text("")
        folders = ["-D", str(defaults), "-M", str(mounted), "-F", str(final)]
        done = self._run("kafka", [*JAVA, "kafka.docker.KafkaDockerWrapper", "setup", *folders])
        assert done.returncode == 0, done.stdout + done.stderr
        heap = SERVICES["kafka"]["environment"]["KAFKA_HEAP_OPTS"].split()
        return [*JAVA, *heap, "kafka.Kafka", str(final / "server.properties")]

    def _run(self, name: str, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self._environment(name), capture_output=True, text=True, check=False
        )

    def _here(self, name: str, command: Sequence[str]) -> list[str]:
        program, *arguments = command
        return [*PROGRAMS.get(program, [program]), *(self._translated(name, one) for one in arguments)]

    def _environment(self, name: str) -> dict[str, str]:
        given = {key: value for key, value in variables(name).items() if key not in OF_THE_IMAGE}
        ours = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        return {key: self._translated(name, value) for key, value in given.items()} | ours

    def _translated(self, name: str, text: str) -> str:
        """Each place by where it is here: others by name and port, itself by the port alone, a path by its folder."""
        for (service, port), here in self._ports.items():
            text = re.sub(rf"\b{service}:{port}\b", f"127.0.0.1:{here}", text)
            text = re.sub(rf"\b{port}\b", str(here), text) if service == name else text
        for inside in [*binds(name), *stores(name), "/var/lib/reptide"]:
            text = re.sub(rf'(?<![\w/]){inside}(?=[/"\s]|$)', str(self.path(name, inside)), text)
        return text
