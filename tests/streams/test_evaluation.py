"""What a run is judged by: every line counted once, and baselines that come back from their file as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest

from streams.errors import InputError
from streams.events.record import incarnation_text
from streams.logs.output import OutputFile
from streams.pages.run.evaluation import Extra, lines_once, read_extras, write_extras


def test_a_line_is_a_repeat_only_in_its_own_partition(tmp_path: Path) -> None:
    log = OutputFile(tmp_path / "scores.jsonl")
    said = [(0, 5), (1, 3), (0, 6), (0, 5), (0, 6), (1, 3), (1, 4), (0, 7)]
    log.append([orjson.dumps({"partition": partition, "offset": offset}) for partition, offset in said])
    lines = [(line["partition"], line["offset"]) for batch in lines_once(log) for line in batch]
    log.close()
    assert lines == [(0, 5), (1, 3), (0, 6), (1, 4), (0, 7)]


def test_a_line_of_a_topic_that_was_made_anew_is_no_repeat(tmp_path: Path) -> None:
    log = OutputFile(tmp_path / "scores.jsonl")
    said = [(7, 0), (7, 1), (8, 0), (8, 1), (8, 1)]
    log.append(
        [orjson.dumps({"incarnation": incarnation_text(at), "partition": 0, "offset": n}) for at, n in said]
    )
    lines = [(line["incarnation"], line["offset"]) for batch in lines_once(log) for line in batch]
    log.close()
    assert lines == [(incarnation_text(at), n) for at, n in said[:4]]


@pytest.mark.parametrize(
    "damaged", [b'{"offset": 1, "task": "\xff"}', b'{"offset": 1, "ta', b"[1]", b'{"offset": 1}']
)
def test_a_damaged_line_is_named_with_the_way_out(tmp_path: Path, damaged: bytes) -> None:
    log = OutputFile(tmp_path / "scores.jsonl")
    log.append([b'{"offset": 0, "task": "erased"}', b'{"offset": 0, "task": "a"}', damaged])
    log.erase(lambda line: b"erased" in line)
    with pytest.raises(
        InputError, match=r"scores.jsonl, line 3 is damaged .* delete the line, or move the file"
    ):
        list(lines_once(log, "task"))
    log.close()


def test_damaged_baselines_are_named(tmp_path: Path) -> None:
    (tmp_path / "extras.npz").write_bytes(b"PK\x03\x04cut")
    with pytest.raises(InputError, match=r"extras\.npz is damaged"):
        read_extras(tmp_path / "extras.npz")


def test_baselines_come_back_as_they_were(tmp_path: Path) -> None:
    def extra(names: tuple[str, ...], labels: int) -> Extra:
        rng = np.random.default_rng(labels)
        prediction = rng.random((labels, len(names), 2), np.float32)
        return Extra(names, np.arange(labels), prediction, rng.random((labels, len(names))))

    written = (extra(("pooled", "pooled_finetuned"), 7), extra(("river",), 5))
    write_extras(tmp_path / "extras.npz", written)
    read = read_extras(tmp_path / "extras.npz")
    assert [one.names for one in read] == [one.names for one in written]
    for one, other in zip(read, written, strict=True):
        assert one.offset.tolist() == other.offset.tolist()
        assert (one.prediction == other.prediction).all()
        assert (one.loss == other.loss).all()
