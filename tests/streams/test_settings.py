"""TOML < environment < flags; whatever is wrong is named by its path, all of it at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.types import EngineError
from streams.errors import SettingsError
from streams.settings import Settings, load_settings
from streams.wiring import fit_settings

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


def test_the_file_goes_before_the_default(config):
    settings = load_settings(config, {})
    assert (settings.inner.lr, settings.inner.steps, settings.inner.clip) == (0.3, 2, 1.0)


def test_the_environment_goes_before_the_file(config):
    settings = load_settings(config, {"REPTIDE_INNER__LR": "0.2", "PATH": "/bin", "REPTIDE_DATA": "/data"})
    assert (settings.inner.lr, settings.inner.steps) == (0.2, 2)


def test_a_password_of_digits_is_the_text_itself(config):
    environment = {
        "REPTIDE_KAFKA__SECURITY__SASL_PLAIN_PASSWORD": "007e5",
        "REPTIDE_KAFKA__BOOTSTRAP": '["a:1"]',
        "REPTIDE_KAFKA__INPUTS": '["events"]',
    }
    kafka = load_settings(config, environment).kafka
    assert kafka.security["sasl_plain_password"].get_secret_value() == "007e5"
    kafka = load_settings(config, environment, ["kafka.security.sasl_plain_password=123456"]).kafka
    assert kafka.security["sasl_plain_password"].get_secret_value() == "123456"


def test_a_flag_goes_before_the_environment(config):
    settings = load_settings(config, {"REPTIDE_INNER__LR": "0.2"}, ["inner.lr=0.1"])
    assert (settings.inner.lr, settings.inner.steps) == (0.1, 2)


def test_the_last_of_two_flags_counts(config):
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
def test_a_flag_is_json_or_else_text(config, flag, value):
    assert load_settings(config, {}, [flag]).title == value


def test_a_list_is_written_as_json(config):
    assert load_settings(config, {}, ["model.hidden=[8, 4]"]).model.hidden == (8, 4)
    assert load_settings(config, {"REPTIDE_MODEL__HIDDEN": "[8]"}).model.hidden == (8,)


def test_a_section_that_the_file_lacks_can_be_set(config):
    assert load_settings(config, {"REPTIDE_RUN__SEED": "7"}, ["drift.options.threshold=3"]) == load_settings(
        config, {}, ["run.seed=7", 'drift={"options": {"threshold": 3}}']
    )


def test_relative_paths_are_relative_to_the_file(config):
    settings = load_settings(config, {}, ["run.directory=/elsewhere"])
    assert settings.input.path == config.parent / "events.csv"
    assert settings.run.directory == Path("/elsewhere")


def test_settings_cannot_be_changed_afterwards(config):
    settings = load_settings(config, {})
    with pytest.raises(ValueError, match="frozen"):
        settings.inner.lr = 1.0  # type: ignore[misc]


def test_the_optimizers_own_options_reach_the_outer_loop(config):
    adam = load_settings(config, {}, ["outer.betas=[0.0, 0.999]"])
    sgd = load_settings(config, {}, ["outer.optimizer=SGD", "outer.momentum=0.9"])
    assert fit_settings(adam.outer).betas == (0.0, 0.999)
    assert fit_settings(sgd.outer).momentum == 0.9
    with pytest.raises(EngineError, match="'SGD' takes no betas; leave betas out, or use 'Adam'"):
        fit_settings(load_settings(config, {}, ["outer.optimizer=SGD", "outer.betas=[0.0, 0.999]"]).outer)


def test_settings_survive_being_shown(config):
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
def test_an_unknown_key_in_the_file_is_named_by_its_path(config, more, path):
    assert f"{path}: there is no such setting" in refusal(config, more)


def test_an_unknown_key_in_the_environment_is_named_by_its_path(config):
    assert "inner.lrr: there is no such setting" in refusal(config, environment={"REPTIDE_INNER__LRR": "1"})


def test_an_unknown_key_in_a_flag_is_named_by_its_path(config):
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
def test_a_wrong_value_is_named_by_its_path(config, more, path):
    assert f"{path}: " in refusal(config, more)


def test_every_mistake_is_named_at_once(config):
    said = refusal(
        config,
        "momentum = 0.9\n[memory]\nsupport = 0\n",
        {"REPTIDE_RUN__BATCH": "none"},
        ("outer.rule=magic", "policy.evry=1"),
    )
    for path in ("inner.momentum", "memory.support", "run.batch", "outer.rule", "policy.evry"):
        assert f"{path}: " in said


def test_a_section_that_is_missing_is_named(tmp_path):
    config = tmp_path / "empty.toml"
    config.write_text("")
    assert all(f"{section}: Field required" in refusal(config) for section in ("features", "target"))


def test_the_file_is_named(config):
    assert refusal(config, "momentum = 0.9").startswith(str(config))


def test_a_file_that_is_no_toml_is_refused_with_the_line(config):
    said = refusal(config, "= 3")
    assert str(config) in said
    assert "line" in said


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        load_settings(tmp_path / "nowhere.toml", {})


def test_a_file_that_is_not_utf_8_is_refused_by_name(config):
    config.write_bytes(b"title = '\xff'")
    with pytest.raises(SettingsError, match=r"shop\.toml"):
        load_settings(config, {})


def test_a_flag_without_a_value_says_how_to_write_it(config):
    assert refusal(config, flags=("inner.lr",)) == "--set inner.lr: write it as section.key=value"


def test_a_value_where_a_section_belongs_is_refused(config):
    assert "title is not a section" in refusal(config, "", flags=("title=x", "title.size=3"))
