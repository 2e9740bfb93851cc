"""TOML < environment < flags; whatever is wrong is named by its path, all of it at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.types import EngineError
from streams.assembly.learners import fit_settings
from streams.errors import SettingsError
from streams.settings.tree import Settings, load_settings

SMALLEST = """
[input]
path = "events.csv"
task = ["user"]
time = "at"
label = "bought"

[[features]]
encoder = "numeric"
name = "price"

[target]
classes = [0, 1]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "shop.toml"
    path.write_text(SMALLEST + "[inner]\nlr = 0.3\nsteps = 2\n")
    return path


def refusal(
    config: Path, more: str = "", environment: dict[str, str] | None = None, flags: tuple[str, ...] = ()
) -> str:
    config.write_text(config.read_text() + more)
    with pytest.raises(SettingsError) as caught:
        load_settings(config, environment or {}, flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Order


def test_the_file_goes_before_the_default(config: Path) -> None:
    settings = load_settings(config, {})
    assert (settings.inner.lr, settings.inner.steps, settings.inner.clip) == (0.3, 2, 1.0)


def test_the_environment_goes_before_the_file(config: Path) -> None:
    settings = load_settings(config, {"REPTIDE_INNER__LR": "0.2", "PATH": "/bin", "REPTIDE_DATA": "/data"})
    assert (settings.inner.lr, settings.inner.steps) == (0.2, 2)


def test_a_password_of_digits_is_the_text_itself(config: Path) -> None:
    environment = {
        "REPTIDE_KAFKA__SECURITY__SASL_PLAIN_PASSWORD": "007e5",
        "REPTIDE_KAFKA__BOOTSTRAP": '["a:1"]',
        "REPTIDE_KAFKA__INPUTS": '["events"]',
    }
    kafka = load_settings(config, environment).kafka
    assert kafka
    assert kafka.security["sasl_plain_password"].get_secret_value() == "007e5"
    kafka = load_settings(config, environment, ["kafka.security.sasl_plain_password=123456"]).kafka
    assert kafka
    assert kafka.security["sasl_plain_password"].get_secret_value() == "123456"


def test_a_flag_goes_before_the_environment(config: Path) -> None:
    settings = load_settings(config, {"REPTIDE_INNER__LR": "0.2"}, ["inner.lr=0.1"])
    assert (settings.inner.lr, settings.inner.steps) == (0.1, 2)


def test_the_last_of_two_flags_counts(config: Path) -> None:
    assert load_settings(config, {}, ["inner.lr=0.1", "inner.lr=0.05"]).inner.lr == 0.05


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("title=Our shop", "Our shop"),
        ("title=a=b", "a=b"),
        ('title="7"', "7"),
        ("title=", ""),
    ],
)
def test_a_flag_is_json_or_else_text(config: Path, flag: str, value: str) -> None:
    assert load_settings(config, {}, [flag]).title == value


def test_a_list_is_written_as_json(config: Path) -> None:
    assert load_settings(config, {}, ["model.hidden=[8, 4]"]).model.hidden == (8, 4)
    assert load_settings(config, {"REPTIDE_MODEL__HIDDEN": "[8]"}).model.hidden == (8,)


def test_a_section_that_the_file_lacks_can_be_set(config: Path) -> None:
    assert load_settings(config, {"REPTIDE_RUN__SEED": "7"}, ["drift.options.threshold=3"]) == load_settings(
        config, {}, ["run.seed=7", 'drift={"options": {"threshold": 3}}']
    )


def test_relative_paths_are_relative_to_the_file(config: Path) -> None:
    settings = load_settings(config, {}, ["run.directory=/elsewhere"])
    assert settings.input
    assert settings.input.path == config.parent / "events.csv"
    assert settings.run.directory == Path("/elsewhere")


def test_settings_cannot_be_changed_afterwards(config: Path) -> None:
    settings = load_settings(config, {})
    with pytest.raises(ValueError, match="frozen"):
        settings.inner.lr = 1.0  # type: ignore[misc]


def test_the_optimizers_own_options_reach_the_outer_loop(config: Path) -> None:
    adam = load_settings(config, {}, ["outer.betas=[0.0, 0.999]"])
    sgd = load_settings(config, {}, ["outer.optimizer=SGD", "outer.momentum=0.9"])
    assert fit_settings(adam.outer).betas == (0.0, 0.999)
    assert fit_settings(sgd.outer).momentum == 0.9
    with pytest.raises(EngineError, match="'SGD' takes no betas; leave betas out, or use 'Adam'"):
        fit_settings(load_settings(config, {}, ["outer.optimizer=SGD", "outer.betas=[0.0, 0.999]"]).outer)


def test_settings_survive_being_shown(config: Path) -> None:
    settings = load_settings(config, {})
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


# Mistakes


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ("momentum = 0.9", "inner.momentum"),
        ("[sesame]\nopen = true", "sesame"),
        ("[outer]\nevry = 10", "outer.evry"),
        ('[[features]]\nencoder = "numeric"\nname = "x"\nunit = "EUR"', "features.1.numeric.unit"),
    ],
)
def test_an_unknown_key_in_the_file_is_named_by_its_path(config: Path, more: str, path: str) -> None:
    assert f"{path}: there is no such setting" in refusal(config, more)


def test_an_unknown_key_in_the_environment_is_named_by_its_path(config: Path) -> None:
    assert "inner.lrr: there is no such setting" in refusal(config, environment={"REPTIDE_INNER__LRR": "1"})


def test_an_unknown_key_in_a_flag_is_named_by_its_path(config: Path) -> None:
    assert "inner.lrr: there is no such setting" in refusal(config, flags=("inner.lrr=1",))


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ('[memory]\nsupport = "many"', "memory.support"),
        ("[memory]\npending = 0", "memory.pending"),
        ("[memory]\nttl_s = -1", "memory.ttl_s"),
        ('[model]\nhidden = "8"', "model.hidden"),
        ('[model]\nadapts = "body"', "model.adapts"),
        ('[outer]\nrule = "magic"', "outer.rule"),
        ("[outer]\nevery = 2.5", "outer.every"),
        ("[hedge]\nshare = 1.0", "hedge.share"),
        ('[[features]]\nencoder = "image"\nname = "x"', "features.1"),
        ('[[features]]\nencoder = "category"', "features.1.category.name"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(config: Path, more: str, path: str) -> None:
    assert f"{path}: " in refusal(config, more)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("outer.every=2.5", "outer.every: takes a whole number, 1 or more, got 2.5"),
        ("inner.lr=fast", 'inner.lr: takes a number, above 0 and 1000000 or less or "auto", got "fast"'),
        ("hedge.share=1.0", "hedge.share: takes a number, 0 or more and below 1, got 1.0"),
        ("run.durable=maybe", 'run.durable: takes true or false, got "maybe"'),
        ("outer.schedule=slow", 'outer.schedule: takes "constant" or "linear" or "cosine", got "slow"'),
        ("drift=3", "drift: takes a section"),
        ("features=3", "features: takes sections, got 3"),
        ('features=[{"encoder": "image"}]', "features.0: there is no encoder 'image'; there are 'numeric'"),
        ('features=[{"name": "x"}]', "features.0: name its encoder: one of 'numeric'"),
        ('features=[{"encoder": "cyclic", "name": "h", "period": "day"}]', "period: takes a number, got"),
    ],
)
def test_a_wrong_value_is_told_what_is_taken(config: Path, flag: str, said: str) -> None:
    sentence = refusal(config, flags=(flag,))
    assert sentence.startswith(f"--set {flag.partition('=')[0]}: ")
    assert said in sentence
    assert "Input should" not in sentence


def test_keys_that_name_no_task_cannot_say_whom_to_forget(config: Path) -> None:
    kafka = '[kafka]\nbootstrap = ["h:1"]\nkeys = "other"\ntombstones = "forget"'
    assert 'kafka: tombstones = "forget" needs keys = "task"' in refusal(config, kafka)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("session_timeout_s = 9", "group.consumer.session.timeout.ms decides"),
        ('client = "kafka-python"', 'needs client = "confluent"'),
    ],
)
def test_what_only_members_that_share_out_partitions_have_is_refused_where_brokers_do(
    config: Path, line: str, said: str
) -> None:
    kafka = '[kafka]\nbootstrap = ["h:1"]\ngroup_protocol = "consumer"'
    assert said in refusal(config, f"{kafka}\n{line}")


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("REPTIDE_MODEL__HIDDEN", "64,32", "'[64, 32]'"),
        ("REPTIDE_INPUT__TASK", "tenant, user", """'["tenant", "user"]'"""),
        ("REPTIDE_OUTER__BETAS", "(0.9, 0.999)", "'[0.9, 0.999]'"),
        ("REPTIDE_TITLE", "2024", """'"2024"'"""),
    ],
)
def test_a_list_or_a_text_in_the_environment_is_shown_in_the_form_that_is_taken(
    config: Path, name: str, text: str, form: str
) -> None:
    assert refusal(config, environment={name: text}).endswith(f"; write it as {name}={form}")
    assert load_settings(config, {name: form.strip("'")})


def test_a_wrong_value_is_looked_for_where_it_was_set(config: Path) -> None:
    said = refusal(config, "momentum = 0.9\n", {"REPTIDE_RUN__BATCH": "0"}, ("outer.every=0", "run.seed=-1"))
    assert [sentence.partition(": takes")[0] for sentence in said.split("; ")] == [
        f"{config}: inner.momentum: there is no such setting",
        "--set outer.every: outer.every",
        "REPTIDE_RUN__BATCH: run.batch",
        "--set run.seed: run.seed",
    ]


def test_a_secret_is_in_no_message(config: Path) -> None:
    for environment in ({"REPTIDE_REDIS__URL": "7777"}, {"REPTIDE_REDIS": "redis://ann:7777@host"}):
        assert "7777" not in refusal(config, environment=environment)
    assert "7777" not in refusal(config, flags=('kafka={"bootstrap": ["a:1"], "security": 7777}',))


def test_a_variable_with_one_underscore_for_two_is_told_the_other(config: Path) -> None:
    said = refusal(config, environment={"REPTIDE_SERVICE_PORT": "9464", "REPTIDE_SERVICE_HOST": "::"})
    assert "REPTIDE_SERVICE_PORT: service_port: there is no such setting; REPTIDE_SERVICE__PORT sets" in said
    assert "REPTIDE_SERVICE__HOST sets service.host" in said
    assert "REPTIDE_PORT: port: " in refusal(config, environment={"REPTIDE_PORT": "9464"})


def test_what_kubernetes_tells_pods_of_a_service_of_our_name_is_no_setting(config: Path) -> None:
    made = {
        "SERVICE_HOST": "10.96.7.1",
        "SERVICE_PORT": "8080",
        "SERVICE_PORT_METRICS": "9464",
        "PORT": "tcp://10.96.7.1:8080",
        "PORT_8080_TCP": "tcp://10.96.7.1:8080",
        "PORT_8080_TCP_PROTO": "tcp",
        "PORT_8080_TCP_PORT": "8080",
        "PORT_8080_TCP_ADDR": "10.96.7.1",
        "PORT_53_UDP_ADDR": "fd00::1",
    }
    environment = {
        f"{service}_{name}": text for service in ("REPTIDE", "REPTIDE_WORKER") for name, text in made.items()
    }
    assert load_settings(config, environment) == load_settings(config, {})
    own = {**environment, "REPTIDE_SERVICE__PORT": "9464"}
    assert load_settings(config, own).service.port == 9464


def test_every_mistake_is_named_at_once(config: Path) -> None:
    said = refusal(
        config,
        "momentum = 0.9\n[memory]\nsupport = 0\n",
        {"REPTIDE_RUN__BATCH": "none"},
        ("outer.rule=magic", "policy.evry=1"),
    )
    for path in ("inner.momentum", "memory.support", "run.batch", "outer.rule", "policy.evry"):
        assert f"{path}: " in said


def test_a_section_that_is_missing_is_named(tmp_path: Path) -> None:
    config = tmp_path / "empty.toml"
    config.write_text("")
    assert all(f"{section}: needed, and not given" in refusal(config) for section in ("features", "target"))


def test_the_file_is_named(config: Path) -> None:
    assert refusal(config, "momentum = 0.9").startswith(str(config))


def test_a_file_that_is_no_toml_is_refused_with_the_line(config: Path) -> None:
    said = refusal(config, "= 3")
    assert str(config) in said
    assert "line" in said


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        load_settings(tmp_path / "nowhere.toml", {})


def test_a_file_that_is_not_utf_8_is_refused_by_name(config: Path) -> None:
    config.write_bytes(b"title = '\xff'")
    with pytest.raises(SettingsError, match=r"shop\.toml"):
        load_settings(config, {})


def test_a_flag_without_a_value_says_how_to_write_it(config: Path) -> None:
    assert refusal(config, flags=("inner.lr",)) == "--set inner.lr: write it as section.key=value"


def test_a_value_where_a_section_belongs_is_refused(config: Path) -> None:
    assert "title is not a section" in refusal(config, "", flags=("title=x", "title.size=3"))
