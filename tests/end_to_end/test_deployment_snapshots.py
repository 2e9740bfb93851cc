"""Snapshots of a deployment, on a real broker and real Redis: taken under load, restored elsewhere, continued."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, TopicPartition

from streams.assembly.deployed import Deployment
from streams.errors import InputError, SettingsError, StoreError
from streams.events.record import SourcePosition
from streams.logs.kafka.log import KafkaLog
from streams.logs.kafka.replay import GroupOffsets
from streams.logs.memory import Crash
from streams.logs.output import TOPICS
from streams.operate.snapshots import deployment as snapshots
from streams.operate.snapshots import state_directory
from streams.operate.snapshots.rows import packed, pages
from streams.program.worker_service import WorkerService
from streams.replay.embedded import OneTask
from streams.stores.redis import rows as redis_rows
from tests.end_to_end.test_deployment_commands import (
    AtTheEnd,
    Stream,
    add_partitions,
    damage,
    fold,
    servers,
    stream,
    train,
)
from tests.faults.shop import run_to_the_end, shop
from tests.redis_servers import Cluster, Server, own_redis, redis_cluster

__all__ = ["own_redis", "redis_cluster", "servers", "stream"]  # fixtures

Start = Callable[..., Server]


def quietly(_: object) -> None:
    """Show no progress."""


def take(stream: Stream) -> Path:
    deployment = stream.deployment
    snapshots.snapshot(deployment, stream.directory / "snapshot", quietly)
    deployment.store.close()
    return stream.directory / "snapshot"


def restore(stream: Stream, inexact: bool = False) -> None:
    snapshots.restore(stream.deployment, stream.directory / "snapshot", quietly, inexact)


def move(stream: Stream, url: str, cluster: bool = False) -> None:
    """Let the settings name another Redis."""
    assert stream.settings.redis
    old = stream.settings.redis.url.get_secret_value()
    new = f'"{url}"\ncluster = {str(cluster).lower()}'
    stream.config.write_text(stream.config.read_text().replace(f'"{old}"', new))


def cut(stream: Stream, below: int) -> None:
    """Let the retention take what comes first in every partition."""
    admin = KafkaAdminClient(bootstrap_servers=stream.deployment.connection.servers)
    assert stream.settings.kafka
    (topic,) = stream.settings.kafka.inputs
    admin.delete_records({
        TopicPartition(topic, p): min(below, end) for (_, p), end in stream.offsets().end().items()
    })  # fmt: skip
    admin.close()


@pytest.fixture
def trained(stream: Stream) -> Stream:
    """A stream with a version of theta, and rows that were adapted from it."""
    stream.send(0)
    fold(stream)
    train(stream)
    stream.send(1)
    fold(stream)
    return stream


@pytest.mark.parametrize("elsewhere", ["another Redis", "a cluster", "the same Redis"])
def test_one_taken_under_load_and_restored_elsewhere_goes_on_bit_for_bit(
    trained: Stream,
    elsewhere: str,
    own_redis: Callable[..., Server],
    redis_cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading = redis_rows.RedisStore.stored

    def while_workers_fold(store: Any) -> Iterator[list[tuple[str, bytes]]]:
        for number, page in enumerate(reading(store)):
            yield page
            if number == 1:
                trained.send(2)
                fold(trained)

    monkeypatch.setattr(redis_rows, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(redis_rows.RedisStore, "stored", while_workers_fold)
    take(trained)
    monkeypatch.undo()
    trained.send(3)
    fold(trained)
    uninterrupted, said = trained.bits(), trained.lines("scores")
    assert trained.counts() == trained.expected(0, 1, 2, 3)
    if elsewhere == "a cluster":
        move(trained, redis_cluster.url, cluster=True)
    elif elsewhere == "another Redis":
        move(trained, own_redis().url)
    restore(trained)
    assert trained.bits() != uninterrupted
    fold(trained)
    assert trained.bits() == uninterrupted
    again = trained.lines("scores")
    assert {str(score) for score in again} == {str(score) for score in said}, "every repeat is the same"


def test_one_from_which_pruning_took_what_it_needs_is_refused(
    trained: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment, reading = trained.deployment, redis_rows.RedisStore.stored

    def while_it_is_pruned(store: Any) -> Iterator[list[tuple[str, bytes]]]:
        yield from reading(store)
        store.drop_adoptions({max(at for at in store.adoptions() if at.partition == p) for p in range(3)})
        store.record({SourcePosition(at.incarnation, at.partition, 10**6): version for at, version in newest})

    newest = list(deployment.store.adoptions().items())
    monkeypatch.setattr(redis_rows.RedisStore, "stored", while_it_is_pruned)
    with pytest.raises(InputError, match=r"pruned while the snapshot was being taken .* take another one"):
        take(trained)
    assert not (trained.directory / "snapshot").exists()
    deployment.store.close()


def contents(stream: Stream) -> Any:
    deployment = stream.deployment
    held = stream.bits(), dict(deployment.store.adoptions()), deployment.versions.current()
    deployment.store.close()
    return held, stream.offsets().read()


@pytest.mark.parametrize("spoil", ["changed", "cut short", "missing"])
def test_one_that_is_damaged_is_refused_before_anything_is_touched(trained: Stream, spoil: str) -> None:
    directory = take(trained)
    damage(trained)
    before = contents(trained)
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        content = path.read_bytes()
        if spoil == "missing":
            path.unlink()
        else:
            path.write_bytes(content[:-1] + (b"" if spoil == "cut short" else bytes([content[-1] ^ 1])))
        with pytest.raises(InputError, match=r"the snapshot .* is damaged|is no snapshot"):
            restore(trained)
        path.write_bytes(content)
    assert contents(trained) == before


def test_one_of_a_state_directory_or_of_another_spec_is_refused(trained: Stream, tmp_path: Path) -> None:
    before = contents(trained)
    (tmp_path / "embedded").mkdir()
    embedded = shop(tmp_path / "embedded", 60)
    run_to_the_end(embedded)
    state_directory.snapshot(embedded, trained.directory / "snapshot", quietly)
    with pytest.raises(InputError, match="is of a state directory, the settings are of a deployment"):
        restore(trained)
    (trained.directory / "snapshot").rename(trained.directory / "other")
    take(trained)
    other = trained.settings.model_copy(update={"learner": "prototype"})
    with pytest.raises(InputError, match="taken under another stream spec"):
        snapshots.restore(Deployment(other), trained.directory / "snapshot", quietly)
    assert contents(trained) == before


def test_a_task_that_was_forgotten_since_stays_forgotten(trained: Stream) -> None:
    take(trained)
    trained.command("forget", "user 1/{}")
    rows = {user: row for user, row in trained.bits().items() if user != "user 1/{}"}
    damage(trained)
    restore(trained)
    fold(trained)
    assert "user 1/{}" not in trained.counts()
    restored = trained.bits()
    assert {user: restored[user] for user in rows} == rows


def test_a_task_that_was_forgotten_before_stays_forgotten_elsewhere(
    trained: Stream, own_redis: Callable[..., Server]
) -> None:
    trained.command("forget", "user 1/{}")
    take(trained)
    move(trained, own_redis().url)
    restore(trained)
    trained.send(2)
    fold(trained)
    expected = trained.expected(0, 1, 2)
    del expected["user 1/{}"]
    assert trained.counts() == expected


def test_no_worker_goes_on_from_half_a_restore_and_it_may_be_run_again(
    trained: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(trained)
    rows = trained.bits()

    def dying(*_: Any) -> None:
        raise Crash("put")

    with monkeypatch.context() as patched, pytest.raises(Crash):
        patched.setattr(redis_rows.RedisStore, "put", dying)
        restore(trained)
    with pytest.raises(StoreError, match=r"`reptide restore .*` is making the rows .* run it again"):
        fold(trained)
    with pytest.raises(StoreError, match="is making the rows"):
        snapshots.snapshot(trained.deployment, trained.directory / "second", quietly)
    restore(trained)
    fold(trained)
    assert trained.bits() == rows


def joined(stream: Stream) -> KafkaLog:
    """A member of the group that has partitions."""
    log = stream.deployment.log()
    while not log.assigned():
        log.poll(1, 0.1)
    return log


def test_a_worker_that_was_made_before_a_restore_and_joins_within_it_folds_nothing(
    trained: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to(trained, "[kafka]", '[kafka]\nclient = "kafka-python"')  # which joins when it is first polled
    take(trained)
    trained.send(2)
    deployment = trained.deployment
    producer = deployment.producer(*map(deployment.topic, TOPICS))
    service: WorkerService = deployment.worker(deployment.log(), producer, quietly, quietly)
    clear = redis_rows.RedisStore.clear

    def joining(store: Any) -> None:
        clear(store)
        with pytest.raises(StoreError, match=r"`reptide restore .*` is making the rows"):
            service.run(AtTheEnd(service, 3))
        producer.close()
        assert trained.counts() == {}

    monkeypatch.setattr(redis_rows.RedisStore, "clear", joining)
    restore(trained)
    monkeypatch.undo()
    fold(trained)
    assert trained.counts() == trained.expected(0, 1, 2)


@pytest.mark.parametrize("command", ["restore", "rebuild --by-workers"])
def test_a_member_that_came_meanwhile_leaves_it_unfinished_and_to_be_run_again(
    trained: Stream, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(trained)
    clear, logs = redis_rows.RedisStore.clear, list[KafkaLog]()

    def joining(store: redis_rows.RedisStore) -> None:
        logs.append(joined(trained))
        clear(store)

    monkeypatch.setattr(redis_rows.RedisStore, "clear", joining)

    def run() -> None:
        if command == "restore":
            restore(trained)
        elif error := trained.attempt(*command.split()).exception:
            raise error

    with pytest.raises(InputError, match=rf"has members; .* then run `reptide {command}.*` again"):
        run()
    monkeypatch.undo()
    for _ in range(2):  # refused at once, it is as unfinished as before
        with pytest.raises(InputError, match="has members; stop all workers"):
            run()
        with pytest.raises(StoreError, match=rf"`reptide {command}.*` is making the rows .* run it again"):
            trained.deployment.store.check_finished()
    logs[0].close()
    run()
    fold(trained)
    assert trained.counts() == trained.expected(0, 1)


def test_while_a_worker_runs_nothing_is_restored(trained: Stream) -> None:
    take(trained)
    damage(trained)
    before = contents(trained)
    log = joined(trained)
    with pytest.raises(InputError, match="has members; stop all workers"):
        restore(trained)
    log.close()
    assert contents(trained) == before
    fold(trained)


def test_events_after_it_that_the_log_has_lost_are_said_and_passed_over_when_told_to(trained: Stream) -> None:
    take(trained)
    trained.send(2)
    cut(trained, below=max(trained.offsets().end().values()))
    before = contents(trained)
    with pytest.raises(InputError, match=r"begins at offset .* is gone by its retention.*--inexact"):
        restore(trained)
    assert contents(trained) == before
    restore(trained, inexact=True)
    fold(trained)
    assert trained.counts() == trained.expected(0, 1)


def test_where_the_log_has_lost_its_tail_it_is_refused_whatever_the_rows_may_be(
    trained: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = GroupOffsets.end
    monkeypatch.setattr(
        GroupOffsets, "end", lambda group: {place: at + 1 for place, at in end(group).items()}
    )
    take(trained)
    monkeypatch.undo()
    before = contents(trained)
    for inexact in (False, True):
        with pytest.raises(InputError, match=r"ends at offset .* `reptide rebuild --inexact`"):
            restore(trained, inexact)
    assert contents(trained) == before


def set_to(stream: Stream, before: str, now: str) -> None:
    """Change the settings file."""
    text = stream.config.read_text()
    assert before in text
    stream.config.write_text(text.replace(before, now))


def keys(stream: Stream) -> list[str]:
    """Everything that Redis holds of the stream."""
    deployment = stream.deployment
    found = [*deployment.server.keys("reptide:*")]
    deployment.store.close()
    return found


def test_one_of_rows_that_were_made_under_other_settings_is_refused_by_name(
    trained: Stream, own_redis: Callable[..., Server]
) -> None:
    take(trained)
    move(trained, own_redis().url)
    set_to(trained, "steps = 1", "steps = 2")
    with pytest.raises(SettingsError, match=r"inner\.steps is 2 and was 1: the rows of the snapshot"):
        restore(trained)
    assert keys(trained) == []


def test_one_that_was_refused_keeps_no_settings(trained: Stream, own_redis: Callable[..., Server]) -> None:
    take(trained)
    trained.send(2)
    cut(trained, below=max(trained.offsets().end().values()))
    move(trained, own_redis().url)
    with pytest.raises(InputError, match="is gone by its retention"):
        restore(trained)
    assert keys(trained) == []


def test_settings_may_be_changed_until_a_row_was_written(stream: Stream) -> None:
    set_to(stream, "steps = 1", "steps = 2")
    trainer = stream.deployment.trainer(quietly, quietly)
    trainer.turn()
    trainer.episodes.close()
    stream.deployment.store.begin("restore")
    with pytest.raises(StoreError, match="is making the rows"):
        fold(stream)
    stream.deployment.store.finished()
    fold(stream)
    set_to(stream, "steps = 2", "steps = 1")
    stream.send(0)
    fold(stream)
    set_to(stream, "steps = 1", "steps = 2")
    with pytest.raises(SettingsError, match=r"inner\.steps is 2 and was 1"):
        fold(stream)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('keys = "other"', r'kafka\.keys is "other" and was "task"'),
        ("clock_skew_s = 60", r"kafka\.clock_skew_s is 60\.0 and was 3600\.0"),
        ('dataschema = "v2"', r'kafka\.dataschema is "v2" and was null'),
    ],
)
def test_a_setting_that_decides_which_events_are_folded_is_refused_midway(
    stream: Stream, setting: str, said: str
) -> None:
    stream.send(0)
    fold(stream)
    set_to(stream, "[kafka]", f"[kafka]\n{setting}")
    attempt = stream.attempt("rebuild")
    assert isinstance(attempt.exception, SettingsError)
    assert re.match(said, str(attempt.exception))


def test_rows_that_are_made_anew_while_they_are_read_are_no_snapshot(
    trained: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = redis_rows.RedisStore.stored

    def while_rows_are_cleared(store: Any) -> Iterator[list[tuple[str, bytes]]]:
        for number, page in enumerate(reading(store)):
            yield page
            if number == 1:
                trained.command("rebuild", "--by-workers")

    monkeypatch.setattr(redis_rows, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(redis_rows.RedisStore, "stored", while_rows_are_cleared)
    with pytest.raises(StoreError, match="were made anew while they were read; take the snapshot again"):
        take(trained)
    assert [path.name for path in trained.directory.iterdir() if "snapshot" in path.name] == []


def test_where_partitions_were_added_it_is_refused(trained: Stream) -> None:
    take(trained)
    add_partitions(trained, 4)
    with pytest.raises(InputError, match=r"taken of 3 partitions, .* have 4"):
        restore(trained)


def test_theta_that_was_trained_anew_since_is_not_mixed_with_that_of_a_snapshot(trained: Stream) -> None:
    take(trained)
    deployment = trained.deployment
    (key,) = deployment.server.keys(f"reptide:{trained.settings.stream}:*theta:v:1")
    content = deployment.versions.content(1)
    deployment.server.ask(("SET", key, b"f" * 32 + content[32:]))
    with pytest.raises(InputError, match="another version 1 of theta"):
        restore(trained)
    deployment.server.ask(("SET", key, content))
    restore(trained)


# Rows made anew from the log alone


def refused(stream: Stream, *options: str) -> str:
    """A rebuild that changes nothing."""
    before = contents(stream)
    attempt = stream.attempt("rebuild", *options)
    assert isinstance(attempt.exception, InputError), attempt.exception
    assert contents(stream) == before
    return str(attempt.exception)


def test_a_rebuild_is_refused_where_the_log_has_lost_its_beginning_and_otherwise_made_of_what_is_left(
    trained: Stream,
) -> None:
    cut(trained, below=5)
    assert "begins at offset 5, what came before, from 0 on, is gone" in refused(trained)
    trained.command("rebuild", "--inexact")
    counted, sent = trained.counts(), trained.expected(0, 1)
    assert sum(map(sum, counted.values())) == sum(map(sum, sent.values())) - 15
    trained.send(2)
    fold(trained)


def test_a_rebuild_is_refused_where_the_topic_was_made_anew_and_otherwise_comes_to_an_end(
    trained: Stream,
) -> None:
    assert trained.settings.kafka
    (topic,) = trained.settings.kafka.inputs
    admin = KafkaAdminClient(bootstrap_servers=trained.deployment.connection.servers)
    admin.delete_topics([topic])
    admin.close()
    trained.command("topics", "create", "--partitions", "3")
    trained.send(2)
    assert "it was cut, or created anew" in refused(trained)
    trained.command("rebuild", "--inexact")
    assert trained.counts() == trained.expected(2)
    trained.send(3)
    fold(trained)
    assert trained.counts() == trained.expected(2, 3)


def test_a_rebuild_is_refused_where_a_theta_is_not_kept_and_otherwise_counts_everything(
    trained: Stream,
) -> None:
    deployment = trained.deployment
    adopted = deployment.store.adoptions()
    deployment.store.drop_adoptions({at for at in adopted if at.offset == 0})
    assert "was folded under below offset" in refused(trained)
    trained.command("rebuild", "--inexact")
    assert trained.counts() == trained.expected(0, 1)


def test_what_is_said_of_a_damaged_version_leads_out(trained: Stream) -> None:
    deployment = trained.deployment
    newest = deployment.versions.current()
    (key,) = deployment.server.keys(f"reptide:{trained.settings.stream}:*theta:v:{newest}")
    content = deployment.versions.content(newest)
    deployment.server.ask(("SET", key, content[:-1] + bytes([content[-1] ^ 1])))
    rows = trained.bits()
    said = str(trained.attempt("rebuild", "--inexact").exception)
    assert trained.bits() == rows, "nothing was cleared"
    way_out = re.search(r"delete it, set (\S+) to (\d+), and run `reptide rebuild --inexact`", said)
    assert way_out, said
    deployment.server.ask(("UNLINK", key), ("SET", *way_out.groups()))
    deployment.store.close()
    trained.command("rebuild", "--inexact")
    assert trained.counts() == trained.expected(0, 1)
    train(trained)
    trained.send(2)
    fold(trained)
    assert trained.counts() == trained.expected(0, 1, 2)


def test_workers_make_the_rows_anew_side_by_side(trained: Stream) -> None:
    rows = trained.bits()
    damage(trained)
    trained.command("rebuild", "--by-workers")
    assert trained.counts() == {}
    fold(trained)
    assert trained.bits() == rows
    add_partitions(trained, 4)
    assert "run `reptide rebuild` without --by-workers" in refused(trained, "--by-workers")


def test_one_row_is_made_anew_alone(trained: Stream) -> None:
    rows = trained.bits()
    damage(trained)
    damaged = trained.bits()
    trained.command("rebuild", "--task", "user 1/{}")
    assert trained.bits() == {**damaged, "user 1/{}": rows["user 1/{}"]}
    assert "holds no event of task" in refused(trained, "--task", "nobody")
    trained.command("forget", "user 2/{}")
    assert "was forgotten" in refused(trained, "--task", "user 2/{}")


def test_while_one_row_is_made_anew_no_worker_writes_on(
    trained: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_into = OneTask.put_into

    def while_a_worker_starts(one: Any, store: Any) -> None:
        trained.send(2)
        with pytest.raises(StoreError, match=r"`reptide rebuild --task` is making the rows"):
            fold(trained)
        put_into(one, store)

    monkeypatch.setattr(OneTask, "put_into", while_a_worker_starts)
    trained.command("rebuild", "--task", "user 1/{}")
    monkeypatch.undo()
    fold(trained)
    assert trained.counts() == trained.expected(0, 1, 2)


def test_one_row_is_made_anew_again_after_a_kill_but_not_within_another_command(trained: Stream) -> None:
    store = trained.deployment.store
    store.begin("rebuild --task")
    trained.command("rebuild", "--task", "user 1/{}")
    store.check_finished()
    store.begin("restore")
    refused = trained.attempt("rebuild", "--task", "user 1/{}").exception
    assert "`reptide restore` is making the rows" in str(refused)
    with pytest.raises(StoreError, match="`reptide restore` is making"):
        store.check_finished()


def test_tombstones_of_another_secret_are_not_mixed_with_those_of_a_snapshot(
    trained: Stream, own_redis: Callable[..., Server]
) -> None:
    trained.command("forget", "user 1/{}")
    take(trained)
    move(trained, own_redis().url)
    trained.command("forget", "user 2/{}")
    with pytest.raises(StoreError, match="under another secret than the snapshot's; delete this key"):
        restore(trained)
    assert trained.counts() == {}


@pytest.mark.parametrize("piece", [1, 7, 64, 10_000])
def test_rows_are_read_in_pieces_of_any_length(piece: int) -> None:
    rows = [("a", b"12345678"), ("b" * 300, b"abcdefgh"), ("~", b"........")]
    content = packed(rows)
    pieces = [content[at : at + piece] for at in range(0, len(content), piece)]
    assert [row for page in pages(pieces, 8) for row in page] == rows
    with pytest.raises(InputError, match="end within one"):
        list(pages([content[:-1]], 8))
