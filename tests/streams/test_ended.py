"""What `reptide run` and `check` say and how they end, where events came to nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from streams.assembly.embedded import embedded
from streams.cli.app import app
from streams.errors import ReptideError
from streams.logs.output import TOPICS
from streams.pages.run.summary import summarise
from streams.program.progress import Progress
from streams.settings.tree import load_settings

SETTINGS = """
[input]
path = "visits.csv"
task = ["user"]
time = "at"
label = "bought"
label_time = "known"
[target]
classes = ["no", "yes"]
[model]
hidden = [4]
[history]
enabled = false
[memory]
pending = 4
ttl_s = 100
[outer]
every = 1000
[[features]]
encoder = "numeric"
name = "amount"
"""

HEADER = "user,visit,at,amount,bought,known"


def reptide(folder: Path, command: str, rows: list[str], *flags: str) -> Result:
    (folder / "shop.toml").write_text(SETTINGS)
    (folder / "visits.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    options = [part for flag in flags for part in ("--set", flag)]
    return CliRunner().invoke(app, [command, str(folder / "shop.toml"), *options])


def said(result: Result) -> str:
    return " ".join(result.stderr.split())


def visit(n: int, bought: str = "yes", *, amount: object = 1, known: float = 0.5, id: str = "") -> str:
    return f"u{n % 2},{id or n},{n},{amount},{bought},{n + known}"


def test_a_run_whose_labels_are_all_refused_says_why_and_fails(tmp_path: Path) -> None:
    ended = reptide(tmp_path, "run", [visit(n, "Yes") for n in range(6)])
    assert ended.exit_code == 1
    assert (
        "no label was scored: 6 observations served, 0 labels late or without an observation, 6 events"
        in said(ended)
    )
    assert "refused (unknown_class): 6, the first in" in said(ended)
    assert "visits.csv, line 2: label 'Yes' is none of ['no', 'yes']; name every class" in said(ended)


def test_what_a_user_wrote_is_neither_cut_at_a_width_nor_read_as_markup(tmp_path: Path) -> None:
    folder = tmp_path / ("of-a-long-name-" * 8) / "[bold]" / ":bug:"
    folder.mkdir(parents=True)
    ended = reptide(folder, "run", [visit(n, "[red]yes[/]") for n in range(6)])
    assert f"the first in {folder}/visits.csv, line 2: label '[red]yes[/]' is none of" in ended.stderr


def test_a_check_of_labels_that_are_all_refused_fails_and_says_nothing_that_only_follows(
    tmp_path: Path,
) -> None:
    checked = reptide(tmp_path, "check", [visit(n, "Yes") for n in range(6)])
    assert checked.exit_code == 1
    assert "6 events will be refused (unknown_class)" in said(checked)
    assert not any(
        word in said(checked) for word in ("no row has a label", "nothing to learn", "waits for ever")
    )


def test_labels_whose_observation_is_refused_are_counted_as_those(tmp_path: Path) -> None:
    rows = [visit(0, amount="much"), visit(1), visit(2, amount="much"), visit(3, "no")]
    checked = reptide(tmp_path, "check", rows)
    assert "2 labels will not be scored, since their observation is refused" in said(checked)
    assert "come before their observation" not in said(checked)
    ended = reptide(tmp_path, "run", rows)
    assert ended.exit_code == 0
    assert "labels without an observation before them, not scored: 2, the first of task 'u0', id 1" in said(
        ended
    )
    assert "their observation was refused, or else look at input.time" in said(ended)


def test_late_labels_are_said_with_their_settings(tmp_path: Path) -> None:
    ended = reptide(tmp_path, "run", [visit(n, known=1000 if n == 3 else 0.5) for n in range(6)])
    assert ended.exit_code == 0
    assert "given up, not scored: 1, the first of task 'u1', id 4, at 1970-01-01 00:16" in said(ended)
    assert "memory.ttl_s or memory.pending" in said(ended)


def test_an_id_that_repeats_is_said_by_check_and_at_the_end_of_a_run(tmp_path: Path) -> None:
    rows = [visit(n, id="same") for n in range(10)]
    checked = reptide(tmp_path, "check", rows, 'input.id="visit"')
    assert "8 of 10 observations have an id that their task had before" in said(checked)
    ended = reptide(tmp_path, "run", rows, 'input.id="visit"')
    assert "id that their task had already, not served anew: 8, the first of task 'u0', id 'same'" in said(
        ended
    )
    assert "let input.id name a column that differs in every row" in said(ended)


@pytest.mark.parametrize(
    ("rows", "flags", "status", "words"),
    [
        ([], (), 1, "the log holds no event"),
        (
            [visit(0, ""), visit(1, "")],
            (),
            1,
            "2 observations served, and the column 'bought' is empty in every row",
        ),
        (
            [visit(0)],
            ("input.label=null", "input.label_time=null"),
            0,
            "1 observation served; nothing is learned",
        ),
    ],
)
def test_a_run_without_labels_fails_unless_none_are_asked_for(
    tmp_path: Path, rows: Any, flags: tuple[Any, ...] | tuple[str, str], status: int, words: str
) -> None:
    ended = reptide(tmp_path, "run", rows, *flags)
    assert ended.exit_code == status
    assert words in said(ended)


def test_a_label_among_the_features_is_said_by_check_and_by_run(tmp_path: Path) -> None:
    for command in ("check", "run"):
        leaky = (
            'features=[{"encoder": "category", "name": "bought"}, {"encoder": "numeric", "name": "known"}]'
        )
        sentence = said(reptide(tmp_path, command, [visit(n) for n in range(4)], leaky))
        assert "field 'bought' is input.label itself, which no observation knows" in sentence
        assert "field 'known' is input.label_time itself" in sentence


@pytest.mark.parametrize(
    ("flag", "warned"),
    [
        ('input.task=["user", "bought"]', "field 'bought' of input.task is input.label itself"),
        ('input.task=["user", "known"]', "field 'known' of input.task is input.label_time itself"),
        ('input.id="bought"', "field 'bought' of input.id is input.label itself"),
    ],
)
def test_a_label_that_names_a_task_or_an_event_is_said_by_check_and_by_run(
    tmp_path: Path, flag: str, warned: str
) -> None:
    for command in ("check", "run"):
        assert warned in said(reptide(tmp_path, command, [visit(n) for n in range(4)], flag))


def test_outputs_that_were_moved_away_fail_no_run_but_lost_episodes_do(tmp_path: Path) -> None:
    rows = [visit(n) for n in range(80)]
    assert reptide(tmp_path, "run", rows).exit_code == 0
    (outputs,) = tmp_path.rglob("outputs")
    for name in ("predictions", "scores", "drifts", "dead-letter"):
        (outputs / f"{name}.jsonl").unlink()
    again = reptide(tmp_path, "run", rows)
    assert again.exit_code == 0
    assert "all 160 events of the log were streamed before" in said(again)
    shutil.rmtree(outputs)
    lost = "outputs/episodes.jsonl was moved away or cut short"
    finished = reptide(tmp_path, "run", rows)
    assert finished.exit_code == 0
    assert lost in said(finished)
    assert lost in str(reptide(tmp_path, "run", [*rows, *(visit(n) for n in range(80, 90))]).exception)


def test_one_label_is_counted_in_the_singular(tmp_path: Path) -> None:
    assert "1 label scored" in said(reptide(tmp_path, "run", [visit(0)]))


def test_a_task_that_is_not_known_is_no_page_of_zeros(tmp_path: Path) -> None:
    assert reptide(tmp_path, "run", [visit(0)]).exit_code == 0
    settings = str(tmp_path / "shop.toml")
    with pytest.raises(ReptideError, match="no task 'nobody' is known"):
        CliRunner().invoke(app, ["inspect", "nobody", settings], catch_exceptions=False)
    assert json.loads(CliRunner().invoke(app, ["inspect", "u0", settings]).stdout)["known"]


def test_the_report_counts_what_every_process_streamed(tmp_path: Path) -> None:
    assert reptide(tmp_path, "run", [*(visit(n) for n in range(9)), visit(9, "maybe")]).exit_code == 0
    settings = load_settings(tmp_path / "shop.toml", {})
    program = embedded(settings)
    try:
        assert program.log.position() == program.log.end() == 20
        assert set(program.outputs) == set(TOPICS)
        assert summarise(settings, program, Progress()).is_scored
    finally:
        program.close()
    assert ">20<" in (settings.run.directory / "report.html").read_text()
