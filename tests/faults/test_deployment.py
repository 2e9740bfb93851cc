"""Workers on a real broker and Redis, killed, stopped and restarted under load: the fault benchmark in short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.fault_deployment import CONFIG
from benchmarks.fault_load import TASKS, Drawn, traffic
from benchmarks.fault_refused import FORGED, KINDS
from benchmarks.faults import QUICK, survive
from streams.assembly.deployed import Deployment
from streams.events.decoding import Decoded, decode
from streams.events.learned_labels import LabelReader
from streams.events.record import Polled
from streams.program.set_aside import strangers
from streams.settings.tree import load_settings
from tests.kafka_brokers import apache_is_asked_for, jars

NOW_MS = 1_700_000_000_000


@pytest.fixture(
    scope="module",
    params=[pytest.param(client, marks=pytest.mark.long) for client in ("kafka-python", "confluent")],
)
def survived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, float]:
    """What happened, and everything that is not as it should be; with each client library."""
    apache = apache_is_asked_for() and jars().is_dir()
    return survive(tmp_path_factory.mktemp("deployment"), QUICK, seed=0, client=request.param, apache=apache)


def test_every_fault_of_the_plan_happened_under_load(survived: Mapping[str, float]) -> None:
    assert survived["kills"] == QUICK.kills
    assert survived["trainer_kills"] == QUICK.trainer_kills
    assert survived["zombies"] == QUICK.zombies
    assert survived["redis_restarts"] == QUICK.redis_restarts
    assert survived["broker_stalls"] == len(QUICK.stalls_s)
    if apache_is_asked_for():
        assert survived["broker_kills"] == QUICK.broker_kills
    assert survived["versions_adopted"] > 1


def test_every_acknowledged_event_is_folded(survived: Mapping[str, float]) -> None:
    assert survived["lost"] == 0


def test_no_event_is_folded_twice(survived: Mapping[str, float]) -> None:
    assert survived["doubled"] == 0


def test_every_row_is_that_of_an_uninterrupted_refold_bit_for_bit(survived: Mapping[str, float]) -> None:
    assert survived["rows"] == len(TASKS)
    assert survived["rows_differing"] == 0


def test_no_output_is_lost(survived: Mapping[str, float]) -> None:
    assert survived["outputs"] > survived["events"]
    assert survived["outputs_lost"] == 0


def test_every_output_that_is_repeated_is_identical(survived: Mapping[str, float]) -> None:
    assert survived["outputs_differing"] == 0


def test_every_message_to_be_refused_is_a_dead_letter_exactly_as_it_was_sent_and_for_its_reason(
    survived: Mapping[str, float],
) -> None:
    assert survived["refused"] > 100
    assert survived["refused.wrong_partition"] > 5
    assert survived["dead_letters_missing"] == 0
    assert survived["dead_letters_for_another_reason"] == 0
    assert survived["dead_letters_unexpected"] == 0


def test_theta_learns_from_every_label_once_whatever_else_is_written_among_the_episodes(
    survived: Mapping[str, float],
) -> None:
    assert survived["forged_episodes"] > 5
    assert survived["labels_unlearned"] == 0
    assert survived["labels_learned_twice"] == 0


def test_told_to_stop_every_process_exits_in_seconds(survived: Mapping[str, float]) -> None:
    assert survived["exit_s"] < 10


@pytest.fixture(scope="module")
def drawn() -> list[Drawn]:
    return [one for one in islice(traffic(seed=0), 5_000) if not one.forged]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    config = Path(tmp_path_factory.mktemp("config")) / "faults.toml"
    config.write_text(CONFIG.format(brokers=["nowhere:1"], client="kafka-python", redis="nowhere:1"))
    return Deployment(load_settings(config, {}))


@pytest.fixture(scope="module")
def decoded(drawn: list[Drawn], deployment: Deployment) -> Decoded:
    """What a worker makes of the load, in an input of two partitions."""
    records = [deployment.envelope.open((0, 0), n, *one.message, NOW_MS) for n, one in enumerate(drawn)]
    found = decode([Polled(0, (1,), 0, records, 2)], deployment.spec.problem)
    kept, aside = strangers(found, 2)
    return kept._replace(rejected=[*found.rejected, *aside])


def test_the_load_is_told_apart_by_its_sender_as_it_is_by_a_worker(
    drawn: list[Drawn], decoded: Decoded
) -> None:
    refused = {rejected.record.offset: rejected.reason for rejected in decoded.rejected}
    assert refused == {n: one.reason for n, one in enumerate(drawn) if one.reason}
    tasks = Counter(record.task for record in decoded.records)
    assert tasks == Counter(one.counted[0] for one in drawn if one.counted)


def test_the_load_holds_messages_to_be_refused_of_every_kind(drawn: list[Drawn], decoded: Decoded) -> None:
    assert {one.message.value for one in drawn if one.reason} >= {kind.value for kind in KINDS.values()}
    assert len({rejected.reason for rejected in decoded.rejected}) >= 10


def test_no_line_of_episodes_in_the_load_is_one_that_a_worker_could_have_written(
    deployment: Deployment,
) -> None:
    lines = [line or b"" for line in FORGED.values()]
    assert all(isinstance(found, str) for found in LabelReader(deployment.spec).read(lines))
