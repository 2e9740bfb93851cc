"""What `reptide meta-train` and `evaluate` do, and what they print of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isinf, isnan
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engine.episodes.meta_train import Place, Stretch
from streams.cli.arguments import console
from streams.errors import SettingsError
from streams.laboratory.assembled import Laboratory, laboratory
from streams.laboratory.distributed import place
from streams.laboratory.evaluation import judge, written
from streams.laboratory.training import SavedTraining, is_published, train
from streams.pages.episodic import table
from streams.pages.episodic.phrases import verdict, warnings
from streams.pages.progress import now_and_then, progress_bar
from streams.settings.tree import Settings
from streams.system.machine import keep_freed_memory


def meta_train(settings: Settings, config: Path, passes: int) -> None:
    """Train on [episodes], or so many passes over those of the stream."""
    keep_freed_memory()
    with place(settings.run.device) as here:
        if settings.episodes is None:
            _meta_train_on_stream(settings, passes, here)
            return
        told = console if here.rank == 0 else Console(quiet=True)
        found = laboratory(settings)
        told.print(found.said)
        try:
            with _bar(told) as show:
                last = train(
                    found, here, lambda step, stretch: show(_said_of(stretch), step, found.section.rounds)
                )
        except KeyboardInterrupt:
            told.print(_stopped(found))
            raise
        told.print(_result(found, last, config))


def evaluate(settings: Settings, episodes: int, out: Path | None) -> None:
    """Judge what was trained, print a table and write a page."""
    keep_freed_memory()
    folder = out or settings.run.directory / "evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    found = laboratory(settings)
    console.print(found.said)
    with _bar(console) as show:
        evaluation = judge(found, episodes, show)
    Console().print(table(evaluation))
    judged, note = next(iter(evaluation["contenders"].items()))
    for sentence in (f"{judged}: {note}.", verdict(evaluation), *warnings(evaluation)):
        console.print(sentence)
    for path in written(found, evaluation, folder):
        console.print(f"written: {path}")


def _meta_train_on_stream(settings: Settings, passes: int, here: Place) -> None:
    if here.processes > 1:
        raise SettingsError(
            "episodes: several processes share episodes of [episodes] alone; start one, or add it"
        )
    if settings.examples is not None:
        raise SettingsError("episodes: say in [episodes] how [examples] are cut, or leave [examples] out")
    # A stream and its compiler, which training on episodes has no need of, take most of a second to load.
    from streams.laboratory.past import meta_train as meta_train_on_stream

    with progress_bar(console, "meta-training", passes) as show:
        outcome = meta_train_on_stream(settings, passes, show)
    console.print(outcome)


@contextmanager
def _bar(told: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar; the callable takes what is being done, how much is done, and of how much. In a log, lines."""
    if not told.is_terminal:
        tell, words = now_and_then(told.print), [""]

        def say(said: str, done: int, of: int) -> None:
            """Without words, the last ones stay."""
            words[0] = said or words[0]
            tell(lambda: f"{done:,} of {of:,}  {words[0]}")

        yield say
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=told, refresh_per_second=4) as bar:
        line = bar.add_task("")
        last = ""

        def show(said: str, done: int, of: int) -> None:
            """Without words, the last ones stay."""
            nonlocal last
            last = said or last
            bar.update(line, description=last, completed=done, total=of)

        yield show


def _stopped(found: Laboratory) -> str:
    """What is left of a training that was stopped."""
    saved = SavedTraining(found).load()
    if saved is None:
        return f"stopped; nothing is saved before {found.section.every:,} rounds (episodes.every)"
    return f"stopped; {saved.stretch.state.step:,} rounds are saved: start it again and it goes on from there"


def _said_of(stretch: Stretch | None) -> str:
    """Losses of a stretch in a line; nothing between stretches."""
    if stretch is None or isnan(stretch.trained_loss):
        return ""
    judged = "" if isnan(stretch.held_out_loss) else f"  validation {stretch.held_out_loss:.4f}"
    best = "" if isinf(stretch.best_loss) else f" (best {stretch.best_loss:.4f})"
    return f"loss {stretch.trained_loss:.4f}{judged}{best}"


def _result(found: Laboratory, last: Stretch, config: Path) -> str:
    """How training ended, and what to do next."""
    rounds = f"{last.state.step:,} rounds"
    early = "" if last.state.step >= found.training.rounds else ", which validation tasks ended early"
    best = (
        ""
        if isinf(last.best_loss)
        else f"; kept is the theta of the best validation loss, {last.best_loss:.4f}"
    )
    published = "; version 1 of theta is it: a stream begins with it" if is_published(found, last) else ""
    return f"trained {rounds}{early}{best}{published}\nnext: reptide evaluate {config}"
