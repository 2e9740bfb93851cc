"""Settings to the objects of a deployment on Kafka and Redis: what `embedded` is for one process.

A client library of Kafka is imported where it is used, so that nobody needs one that was not chosen: kafka-python
creates, checks and reads topics, for the trainer too; workers and producers take the one of `kafka.client`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from engine.learners.base import Learner
from engine.learners.fingerprint import theta_fingerprint
from engine.stream.fold import Engine
from engine.stream.layout import Layout, layout_of
from engine.stream.spec import StreamSpec
from streams.assembly import learners, parts
from streams.events.envelope import Envelope
from streams.logs.base import EventLog
from streams.logs.kafka.group import Connection, GroupClient
from streams.logs.kafka.log import KafkaLog
from streams.logs.kafka.outputs import KafkaOutputs, Producer
from streams.logs.output import DEAD_LETTER, TOPICS
from streams.program import trainer_service, worker_service
from streams.program.outputs import Outputs
from streams.program.progress import Progress
from streams.program.pruning import prune
from streams.program.schedule import Schedule
from streams.program.theta import ThetaCache
from streams.program.trainer import Advance
from streams.program.trainer_service import TrainerService
from streams.program.worker import Worker
from streams.program.worker_service import WorkerService
from streams.settings import kept as kept_settings
from streams.settings import places
from streams.settings.kept import OWN_STREAM, of_rows
from streams.settings.tree import Settings, required
from streams.stores.classes import agree
from streams.stores.redis.classes import RedisClasses
from streams.stores.redis.rows import RedisStore
from streams.stores.redis.sentinels import Service
from streams.stores.redis.server import RedisServer
from streams.stores.redis.settings import RedisSettings
from streams.stores.redis.versions import RedisMeta
from streams.watch.health import Health
from streams.watch.telemetry import Telemetry

if TYPE_CHECKING:
    from streams.logs.kafka.reader import KafkaTopicReader
    from streams.logs.kafka.topics import Topics

STUCK_S = 60.0
"""A loop that made no progress for so long, on top of what a server may keep it waiting, is not healthy."""
HEARTBEAT_S = 0.5
"""A heartbeat's answer is how a member hears of a rebalance, for which all the others wait."""


@dataclass(frozen=True)
class Deployment:
    """The parts that the roles of one stream are made of; each is made when it is first asked for."""

    settings: Settings

    @cached_property
    def kafka(self) -> places.Kafka:
        """The section, which must be there."""
        return required(self.settings.kafka, "kafka")

    @cached_property
    def redis(self) -> places.Redis:
        """The section, which must be there."""
        return required(self.settings.redis, "redis")

    @cached_property
    def spec(self) -> StreamSpec:
        """The stream spec."""
        return replace(parts.stream_spec(self.settings), topics=len(self.kafka.inputs))

    @cached_property
    def learner(self) -> Learner:
        """What adapts theta."""
        return learners.learner(self.settings, self.spec.problem)

    @cached_property
    def layout(self) -> Layout:
        """How a row is laid out."""
        return layout_of(self.spec, self.learner)

    @cached_property
    def engine(self) -> Engine:
        """The engine, for whoever folds or trains: its parts are checked."""
        return parts.stream_engine(self.settings, self.spec, self.learner)

    @cached_property
    def connection(self) -> Connection:
        """Where the brokers are."""
        security = {name: value.get_secret_value() for name, value in self.kafka.security.items()}
        return Connection(",".join(self.kafka.bootstrap), security)

    @cached_property
    def server(self) -> RedisServer:
        """The connection to Redis."""
        redis = self.redis
        return RedisServer(
            redis.url.get_secret_value(), redis.cluster, redis.timeout_s, redis.wait_replicas, self._service
        )

    @property
    def _service(self) -> Service | None:
        """What Sentinels watch, where there are any."""
        redis = self.redis
        if redis.service is None:
            return None
        password = redis.sentinel_password.get_secret_value() if redis.sentinel_password else None
        return Service(redis.service, redis.sentinels, redis.sentinel_user, password)

    @cached_property
    def store(self) -> RedisStore:
        """The rows."""
        return RedisStore(
            self.server, self.settings.stream, self.layout, self.redis.ttl_s, packed=self.redis.packed
        )

    @cached_property
    def versions(self) -> RedisMeta:
        """The versions of theta; settings and classes that are not those of before are refused first."""
        stream, fingerprint = self.settings.stream, theta_fingerprint(self.learner)
        kept_settings.refuse_changed(
            self._kept_settings.read() or {}, of_rows(self.settings), self._made_under, OWN_STREAM
        )
        agree(RedisClasses(self.server, stream, fingerprint), self.spec.problem.target)
        return RedisMeta(self.server, stream, fingerprint, self.settings.service.durability_lag_s)

    def keep_settings(self) -> None:
        """Keep the settings that rows are made under, once they are."""
        kept_settings.agree(self._kept_settings, of_rows(self.settings), self._made_under, OWN_STREAM)

    @property
    def _kept_settings(self) -> RedisSettings:
        return RedisSettings(self.server, self.settings.stream, self.layout.fingerprint)

    @property
    def _made_under(self) -> str:
        return f"the rows of stream {self.settings.stream!r}"

    @property
    def group(self) -> str:
        """The consumer group of the workers."""
        return self.kafka.group or f"{self.settings.stream}-{self.layout.fingerprint:016x}"

    def topic(self, output: str) -> str:
        """The name of an output's topic."""
        prefix = f"{self.settings.stream}." if self.kafka.outputs is None else self.kafka.outputs
        return f"{prefix}{output}"

    @property
    def topics(self) -> Topics:
        """Every topic of the stream."""
        from streams.logs.kafka.topics import Topics

        outputs = tuple(self.topic(name) for name in TOPICS if name != DEAD_LETTER)
        return Topics(self.kafka.inputs, outputs, self.topic(DEAD_LETTER))

    @property
    def envelope(self) -> Envelope:
        """How messages of the input are taken apart."""
        return Envelope(len(self.kafka.inputs), self.kafka.dataschema, self.kafka.clock_skew_s)

    @property
    def forgets_for_s(self) -> float | None:
        """How long a task stays forgotten that a message without a value forgets; None where none does."""
        return self.redis.tombstone_s if self.kafka.tombstones == "forget" else None

    def log(self) -> KafkaLog:
        """Join the group."""
        return KafkaLog(
            self._member(), self.kafka.inputs, self.settings.service.durability_lag_s, self.kafka.expired
        )

    def producer(self, *topics: str) -> KafkaOutputs:
        """A producer for some topics."""
        return KafkaOutputs(lambda: self._producer(topics))

    def outputs(self, producer: KafkaOutputs, log: EventLog) -> Outputs:
        """What a worker says."""
        names = {output: self.topic(output) for output in TOPICS}
        letters = producer.dead_letters(names.pop(DEAD_LETTER), log.origin)
        topics = {output: producer.topic(name) for output, name in names.items()}
        return Outputs(topics, letters, self.spec.problem, self.settings.outer.support_rate)

    def reader(self, output: str) -> KafkaTopicReader:
        """Reads an output's topic."""
        from streams.logs.kafka.reader import KafkaTopicReader

        return KafkaTopicReader(self.connection, self.topic(output))

    @property
    def stuck_s(self) -> float:
        """How long a loop may take from one sign of life to the next: longer than any one server keeps it waiting."""
        waits = (
            self.kafka.delivery_timeout_s,
            self.settings.service.durability_lag_s,
            2 * self.redis.timeout_s,
        )
        return STUCK_S + max(waits)

    def worker(
        self,
        log: KafkaLog,
        producer: KafkaOutputs,
        show: Callable[[Progress], None],
        say: Callable[[str], None],
    ) -> WorkerService:
        """The loop of `reptide worker`."""
        self.store.check_finished()
        service, run = self.settings.service, self.settings.run
        telemetry = Telemetry()
        telemetry.row_bytes(self.layout.bytes_per_task)
        worker = Worker(
            self.engine,
            log,
            self.store,
            ThetaCache(self.engine, self.versions),
            self.outputs(producer, log),
            run.batch,
            Schedule(self.settings.outer.every),
            telemetry,
            say,
            keyed=self.kafka.keys == "task",
            forgets_for_s=self.forgets_for_s,
        )
        health = Health(worker_service.CONDITIONS, self.stuck_s)
        return WorkerService(
            worker,
            log,
            self.kafka.inputs,
            health,
            service.budget_s,
            service.ready_lag,
            show,
            say,
            self.store.ping,
            self._check_before_folding(),
        )

    def trainer(self, show: Callable[[Advance], None], say: Callable[[str], None]) -> TrainerService:
        """The loop of `reptide trainer`."""
        health = Health(trainer_service.CONDITIONS, self.stuck_s)
        trains = parts.trainer(self.settings, self.spec, self.engine.learner, self.versions)
        trains.check_optimizer()
        return TrainerService(
            replace(trains, alive=health.alive),
            self.reader("episodes"),
            Schedule(self.settings.outer.every),
            Telemetry(),
            health,
            self.settings.service.publish_every_s,
            show,
            say,
            lambda: prune(self.store, self.versions, self.settings.outer.keep_gib, say),
        )

    def _check_before_folding(self) -> Callable[[], None]:
        """What a member of the group asks before each batch: a command that makes rows anew may have begun."""
        kept = False

        def check() -> None:
            """Refuse rows that are being made anew, and settings that others were first with."""
            nonlocal kept
            self.store.check_finished()
            if not kept:
                self.keep_settings()
                kept = True

        return check

    def _member(self) -> GroupClient:
        kafka = self.kafka
        member = self.connection, self.group, kafka.inputs, self.envelope
        arguments = *member, kafka.session_timeout_s, HEARTBEAT_S, kafka.group_instance_id
        if kafka.client == "confluent":
            from streams.logs.kafka.confluent.consumer import ConfluentGroup

            return ConfluentGroup(*arguments, protocol=kafka.group_protocol)
        from streams.logs.kafka.kafka_python.consumer import KafkaGroup

        return KafkaGroup(*arguments)

    def _producer(self, topics: tuple[str, ...]) -> Producer:
        if self.kafka.client == "confluent":
            from streams.logs.kafka.confluent.producer import ConfluentProducer

            return ConfluentProducer(self.connection, topics, self.kafka.delivery_timeout_s)
        from streams.logs.kafka.kafka_python.producer import KafkaPythonProducer

        return KafkaPythonProducer(self.connection, topics, self.kafka.delivery_timeout_s)
