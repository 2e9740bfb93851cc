"""The image: what it is built from is there and pinned, and what it starts is held to the code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from streams.watch.health import Health, HealthServer
from tests.deploy.command_line import ROOT, not_settings
from tests.deploy.dockerfile import DOCKERFILE, STAGES, environment, instructions

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_what_it_is_built_from_is_there_and_reaches_the_builder() -> None:
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line[:1] == "!"
    }
    copied = {name for line in instructions("COPY") if "--from" not in line for name in line.split()[:-1]}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_the_extras_that_it_installs_exist_and_suffice_for_both_clients() -> None:
    (extras,) = re.findall(r"'\.\[(.+?)\]'", DOCKERFILE)
    assert set(extras.split(",")) == {"kafka", "redis"} <= PROJECT["optional-dependencies"].keys()


def test_every_version_that_it_installs_is_pinned() -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = {canonicalize_name(name) for name in re.findall(r"^(\S+?)==", constraints, re.MULTILINE)}
    seen, asked = set(), [Requirement("reptide[kafka,redis]")]
    for wanted in asked:
        for extra in ("", *wanted.extras):
            for text in distribution(wanted.name).requires or ():
                inner = Requirement(text)
                if (inner.marker is None or inner.marker.evaluate({"extra": extra})) and str(
                    inner
                ) not in seen:
                    seen.add(str(inner))
                    asked.append(inner)
    by_torch = re.compile(r"nvidia-|cuda-|triton$")  # whose versions each build of torch names itself
    names = {canonicalize_name(one.name) for one in asked} - {"reptide"}
    assert {name for name in names - pinned if not by_torch.match(name)} == set()


def test_what_is_built_where_no_stage_is_named_is_the_command_alone() -> None:
    assert STAGES[""] == "reptide"


def test_the_flights_are_where_the_load_of_the_compose_file_reads_them() -> None:
    settings = tomllib.loads((ROOT / "deploy/compose/reptide.toml").read_text(encoding="utf-8"))
    assert f"write_flights(Path('{settings['input']['path']}'))" in STAGES["table"]
    assert STAGES["flights"].startswith("reptide AS ")
    (copied,) = re.findall(r"^COPY --from=table (\S+) \1$", STAGES["flights"], re.MULTILINE)
    assert settings["input"]["path"].startswith(f"{copied}/")


def test_it_runs_the_command_as_a_user_that_is_not_root() -> None:
    (entry,) = instructions("ENTRYPOINT")
    assert set(json.loads(entry)) == PROJECT["scripts"].keys()
    (user,) = instructions("USER")
    assert int(user.split(":")[0]) > 0


def test_it_takes_up_the_machine_code_that_it_was_built_with() -> None:
    build, final = STAGES["build"], STAGES["reptide"]
    assert re.search(r"^RUN .+engine\.ahead.+compile_everything\(\)", build, re.MULTILINE)
    assert environment(build)["NUMBA_CPU_NAME"] == environment(final)["NUMBA_CPU_NAME"]
    assert re.search(r"^COPY --from=build (\S+) \1$", final, re.MULTILINE)


def test_its_variables_are_settings_and_its_port_is_the_one_exposed() -> None:
    variables = environment(STAGES["reptide"])
    assert not_settings(variables) == []
    assert instructions("EXPOSE") == [variables["REPTIDE_SERVICE__PORT"]]


@pytest.mark.parametrize(("bound_s", "status"), [(60.0, 0), (-1.0, 1)])
def test_its_health_check_passes_while_the_loop_makes_progress_and_fails_where_it_does_not(
    bound_s: float, status: int
) -> None:
    (check,) = re.findall(r"CMD (\[.+\])$", instructions("HEALTHCHECK")[0])
    program, *arguments = json.loads(check)
    assert program == "python"
    with HealthServer(Health((), bound_s), lambda: b"", 0) as server:
        done = subprocess.run(
            [sys.executable, "-I", *arguments],
            env={"REPTIDE_SERVICE__PORT": str(server.port)},
            capture_output=True,
            check=False,
        )
    assert done.returncode == status, done.stderr


TRAINS = """
import tempfile
def refuse(): raise FileNotFoundError("no temporary folder")
tempfile._get_default_tempdir = refuse
import torch
torch.optim.Adam([torch.zeros(1, requires_grad=True)])
"""


def test_training_needs_no_temporary_folder_where_the_image_names_one_that_is_there() -> None:
    final = STAGES["reptide"]
    folder = environment(final)["TORCHINDUCTOR_CACHE_DIR"]
    assert f"COPY --from=build {folder} {folder}" in final
    variables = {"TORCHINDUCTOR_CACHE_DIR": str(ROOT)}
    subprocess.run([sys.executable, "-I", "-c", TRAINS], env=variables, check=True)


def test_modules_that_settings_name_are_found_where_settings_are_mounted() -> None:
    assert instructions("WORKDIR", STAGES["reptide"].splitlines()) == ["/etc/reptide"]
