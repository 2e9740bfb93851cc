"""What a run says at its end of events that came to nothing: how many, why, where the first is, and the way out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from streams.events.reasons import WAYS_OUT
from streams.events.wording import utc
from streams.pages.kit.phrases import plural
from streams.pages.run.contents import Rejection
from streams.pages.run.evaluation import Met

NOT_SCORED = {
    "orphan": (
        "labels without an observation before them, not scored",
        "look at input.time, input.label_time and input.id",
    ),
    "late": (
        "labels that came after their observation was given up, not scored",
        "raise memory.ttl_s or memory.pending: `reptide check` says how far",
    ),
    "example": (
        "late or orphan labels that were learned from by their own features, not scored",
        "look at input.label_time, memory.ttl_s and input.id",
    ),
    "repeated_observation": (
        "observations with an id that their task had already, not served anew",
        "let input.id name a column that differs in every row, or leave it out",
    ),
    "repeated_label": ("labels that came again, counted once", "look at input.id"),
    "corrected": ("second labels that replaced a first, whose score stands", "look at input.id"),
}
"""Outcomes that score nothing: what happened, and the way out."""


def came_to_nothing(met: Mapping[str, Met], rejected: Sequence[Rejection]) -> Iterator[str]:
    """A sentence for each reason for which events were refused, and for each outcome that scores nothing."""
    for one in rejected:
        way_out = WAYS_OUT.get(one["reason"])
        yield (
            f"events refused ({one['reason']}): {one['count']:,}, the first in {one['first']}"
            f"{f'; {way_out}' if way_out else ''}"
        )
    for outcome, (what, way_out) in NOT_SCORED.items():
        if outcome == "orphan" and rejected:
            way_out = f"their observation was refused, or else {way_out}"
        if outcome in met:
            first = met[outcome].first
            place = f"of task {first['task']!r}, id {first['id']!r}, at {utc(first['time'])}"
            yield f"{what}: {met[outcome].events:,}, the first {place}; {way_out}"


def made_room(gone: int) -> Iterator[str]:
    """A sentence on the tasks that were forgotten because there were too many, if any were."""
    if gone:
        yield (
            f"tasks forgotten, since there were more than run.most_tasks: {gone:,} in all; one that comes again "
            "begins anew"
        )


def why_nothing_was_scored(
    met: Mapping[str, Met], rejected: Sequence[Rejection], label: str | None, events: int
) -> str:
    """What became of events in one sentence, where no label was scored; `events` are those of the log."""
    answered = met["predicted"].events if "predicted" in met else 0
    told = sum(met[outcome].events for outcome in ("orphan", "late", "example") if outcome in met)
    refused = sum(one["count"] for one in rejected)
    if label is None:
        return (
            f"{plural(answered, 'observation')} served; nothing is learned, since input.label names no column"
        )
    if not answered + told + refused:
        if events:
            return (
                f"the outputs hold no line: all {events:,} events of the log were streamed before, and what was said "
                "of them was moved away"
            )
        return "no label was scored: the log holds no event"
    if not told + refused:
        served = plural(answered, "observation")
        return f"no label was scored: {served} served, and the column {label!r} is empty in every row"
    return (
        f"no label was scored: {plural(answered, 'observation')} served, {plural(told, 'label')} late or without an "
        f"observation, {plural(refused, 'event')} refused"
    )
