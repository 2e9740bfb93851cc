"""See that this code goes on from what an earlier revision has left in Kafka and Redis, and that nothing is lost.

The revision's own worker and trainer run under the load of the fault benchmark until theta has advanced; they are
told to stop, and those of this code are started on the same settings, topics and rows, while the load goes on. At the
end everything is compared with what was sent, and with an uninterrupted refold by this code.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from time import sleep

import numpy as np
import torch

from benchmarks.fault_audit import audit
from benchmarks.fault_brokers import apache_is_there
from benchmarks.fault_deployment import CLIENTS, Served, end, load_of, served, staffed
from benchmarks.fault_processes import Crew
from benchmarks.fault_scene import Scene
from benchmarks.reporting import arguments, show, write

WORKERS = 2
RATE = 100.0
HOLD_S = 20.0
"""How long each of the two is under load; the earlier one at least until theta has advanced."""
STOPPED_S = 120.0
"""A trainer stops when the version of theta in hand is made."""
PAUSE_S = 0.2
SOURCES = Path(__file__).parents[1]


def upgrade(directory: Path, revision: str, client: str, apache: bool) -> dict[str, float]:
    """Stop a deployment of a revision and go on by this code; what was lost, doubled or made otherwise."""
    tree = directory / "earlier"
    _extract(revision, tree)
    with served(directory, client, apache) as servers:
        load = load_of(servers.deployment, 0, RATE)
        with load:
            with _earlier(tree, servers):
                sleep(HOLD_S)
                while not servers.deployment.versions.current():
                    sleep(PAUSE_S)
            stopped_at = servers.deployment.versions.current()
            with staffed(Crew(servers.config, directory), WORKERS) as crew:
                scene = Scene(servers, crew, load, np.random.default_rng(0))
                sleep(HOLD_S)
                scene.wait_for_a_version()
                load.stop()
                scene.wait_until_folded()
                scene.wait_until_learned()
                end(crew)
        figures = audit(servers.deployment, load.ledger)
        return {
            "version_before": stopped_at,
            "version_after": servers.deployment.versions.current(),
            **figures,
        }


def _extract(revision: str, tree: Path) -> None:
    """The sources of a revision, in a folder of their own, their loop compiled."""
    command = ["git", "archive", revision]
    packed = subprocess.run(command, cwd=SOURCES, check=True, capture_output=True)
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(tree, filter="data")
    (scan,) = tree.glob("engine/**/scan.py")  # which revisions keep in different places
    compiled = [sys.executable, "-c", f"import {'.'.join(scan.relative_to(tree).with_suffix('').parts)}"]
    subprocess.run(compiled, cwd=tree, check=True)


@contextmanager
def _earlier(tree: Path, servers: Served) -> Iterator[None]:
    """Workers and a trainer of another tree of the sources, which are told to stop at the end of the block.

    Raises:
        RuntimeError: one of them failed.

    """
    # What is imported is looked for in the working directory first.
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    roles, said = ("trainer", *["worker"] * WORKERS), tree / "said"
    with said.open("w") as output:
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "streams.cli", role, str(servers.config)],
                cwd=tree, env=environment, stdout=output, stderr=output,
            )
            for role in roles
        ]  # fmt: skip
    try:
        yield
        for process in started:
            process.send_signal(signal.SIGTERM)
        if failed := [status for process in started if (status := process.wait(STOPPED_S))]:
            raise RuntimeError(f"they ended with {failed}: {said.read_text()}")
    finally:
        for process in started:
            process.kill()


def main() -> None:
    """Go on from a revision, and count."""
    options = arguments(__doc__.splitlines()[0], client=CLIENTS, revision=())
    torch.set_num_threads(1)
    revision, client = options.chosen["revision"], options.chosen["client"]
    with tempfile.TemporaryDirectory() as folder:
        figures = upgrade(Path(folder), revision, client, apache_is_there())
    show(f"an upgrade from {revision}", ["what", "count"], [[*pair] for pair in figures.items()])
    write(options.json, figures)


if __name__ == "__main__":
    main()
