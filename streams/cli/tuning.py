"""`reptide tune`: what it prints, and the file that it writes."""

from __future__ import annotations

from pathlib import Path

import optuna
from rich.console import Console

from engine.stream.layout import layout_of
from streams.assembly import parts
from streams.errors import ReptideError
from streams.pages.progress import working
from streams.settings.tree import Settings, values_of
from streams.system.locks import held
from streams.tuning.part import Part, first_part
from streams.tuning.search import Best, Search
from streams.tuning.space import Values, changed
from streams.tuning.trial import Tried
from streams.tuning.written import write_settings

ENDED = {
    "unpromising": "given up: worse than most others by then",
    "stopped": "stopped, and not counted",
}
MINUTE_S = 60.0


def tune(
    config: Path,
    settings: Settings,
    flags: tuple[str, ...],
    out: Path | None,
    share: float,
    trials: int,
    minutes: float,
    jobs: int,
    console: Console,
) -> bool:
    """Search, say what it bought, and write the file; False where Ctrl-C ended the search."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    part = first_part(settings, share)
    search = Search(settings, part, config.parent / f"{config.stem}.tune")
    with held(search.folder):
        ended, best = _searched(search, trials, minutes, jobs, console)
    if best is None:
        raise ReptideError(
            f"the settings as they stand did not come to the end of the part; {_refused(ended)}"
        )
    out = out or config.with_name(f"{config.stem}.tuned.toml")
    if _is_bought(best):
        write_settings(config, out, {**values_of(flags), **best.values}, settings.run.directory)
    for line in _conclusion(best, part, out):
        console.print(line)
    if _is_bought(best) and (sizes := _row_sizes(settings, best)):
        console.print(sizes)
    return ended


def _searched(
    search: Search, trials: int, minutes: float, jobs: int, console: Console
) -> tuple[bool, Best | None]:
    """Whether the search came to its end, and the best of all trials so far."""
    journal = search.journal()
    console.print(f"{trials} trials or {minutes:g} minutes on {search.part.described}")
    if before := journal.ended():
        console.print(f"{before} trials are there from before")
    with working(console, "trying settings"):
        ended = search.run(
            journal, trials, minutes * MINUTE_S, jobs, lambda *trial: console.print(_line(*trial))
        )
    return ended, search.best(journal)


def _refused(ended: bool) -> str:
    return "give it more --minutes, or a smaller --share" if ended else "start it again and it goes on"


def _line(number: int, values: Values, ended: Tried) -> str:
    said = f"loss {ended.loss:.4f}" if ended.end == "finished" else ENDED.get(ended.end, ended.reason)
    return f"trial {number}: {said} ({ended.seconds:.0f} s)  {_shown(values)}"


def _shown(values: Values) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())


def _is_bought(best: Best) -> bool:
    return bool(best.values) and best.gain.is_beyond_chance


def _row_sizes(settings: Settings, best: Best) -> str:
    """What a task costs, where it is not what it was."""
    before, after = (
        layout_of(*parts.described(each)).bytes_per_task
        for each in (settings, changed(settings, best.values))
    )
    return "" if before == after else f"a task takes {after:,} bytes instead of {before:,}"


def _conclusion(best: Best, part: Part, out: Path) -> list[str]:
    judged = f"{best.gain.labels:,} labels of the second half of the part"
    lines = [f"the settings as they stand: loss {best.stand:.4f} as served, over {judged}"]
    if not best.values:
        lines.append(f"of {best.trials} trials none is better; nothing is written")
    elif not _is_bought(best):
        lines += [
            f"the best of {best.trials} trials: {best.loss:.4f}, better by {best.gain.described}: no more than "
            "chance would do; nothing is written",
        ]
    else:
        lines += [
            f"the best of {best.trials} trials: {best.loss:.4f}, better by {best.gain.described}; it was chosen on "
            "these same labels, so expect somewhat less",
            f"it sets {_shown(best.values)}",
            f"written to {out}, with a state directory of its own: reptide run {out}",
        ]
    return [*lines, f"chosen on {part.described}"]
