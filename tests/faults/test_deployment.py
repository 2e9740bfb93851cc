"""Workers on a real broker and Redis, killed, stopped and restarted under load: the fault benchmark in short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.fault_load import KINDS, TASKS, Drawn, traffic
from benchmarks.faults import CONFIG, QUICK, survive
from streams.deployment import Deployment
from streams.logs.base import Polled
from streams.settings import load_settings
from streams.wire import Decoded, decode


@pytest.fixture(scope="module", params=["kafka-python", "confluent"])
def survived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, float]:
    """What happened, and everything that is not as it should be; with each client library."""
    return survive(tmp_path_factory.mktemp("deployment"), QUICK, seed=0, client=request.param)


def test_every_fault_of_the_plan_happened_under_load(survived):
    assert survived["kills"] == QUICK.kills
    assert survived["zombies"] == QUICK.zombies
    assert survived["redis_restarts"] == QUICK.redis_restarts
    assert survived["broker_stalls"] == len(QUICK.stalls_s)
    assert survived["versions_adopted"] > 2


def test_every_acknowledged_event_is_folded(survived):
    assert survived["lost"] == 0


def test_no_event_is_folded_twice(survived):
    assert survived["doubled"] == 0


def test_every_row_is_that_of_an_uninterrupted_refold_bit_for_bit(survived):
    assert survived["rows"] == len(TASKS)
    assert survived["rows_differing"] == 0


def test_no_output_is_lost(survived):
    assert survived["outputs"] > survived["events"]
    assert survived["outputs_lost"] == 0


def test_every_output_that_is_repeated_is_identical(survived):
    assert survived["outputs_differing"] == 0


def test_every_malformed_message_is_a_dead_letter_exactly_as_it_was_sent(survived):
    assert survived["malformed"] > 100
    assert survived["dead_letters_missing"] == 0


def test_told_to_stop_every_process_exits_in_seconds(survived):
    assert survived["exit_s"] < 10


@pytest.fixture(scope="module")
def drawn() -> list[Drawn]:
    return list(islice(traffic(seed=0), 5_000))


@pytest.fixture(scope="module")
def decoded(drawn: list[Drawn], tmp_path_factory: pytest.TempPathFactory) -> Decoded:
    """What a worker makes of the load."""
    config = Path(tmp_path_factory.mktemp("config")) / "faults.toml"
    config.write_text(CONFIG.format(broker="nowhere:1", client="kafka-python", redis="nowhere:1"))
    deployment = Deployment(load_settings(config, {}))
    records = [deployment.envelope.open((0, 0), n, *one.message, -1) for n, one in enumerate(drawn)]
    return decode([Polled(0, (1,), 0, records)], deployment.spec)


def test_the_load_is_told_apart_by_its_sender_as_it_is_by_a_worker(drawn, decoded):
    refused = {rejected.record.offset for rejected in decoded.rejected}
    assert refused == {n for n, one in enumerate(drawn) if one.counted is None}
    tasks = Counter(record.task for record in decoded.records)
    assert tasks == Counter(one.counted[0] for one in drawn if one.counted)


def test_the_load_holds_malformed_messages_of_every_kind(drawn, decoded):
    assert {one.message.value for one in drawn if one.counted is None} == set(KINDS.values())
    assert len({rejected.reason for rejected in decoded.rejected}) >= 9
