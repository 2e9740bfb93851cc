"""What `reptide run` wrote, read back with polars: `python examples/outputs.py reptide-state/outputs`.

Each file is JSON lines, and each line one event: predictions, and scores, which have what every expert lost at the
moment when the label came. Losses are in nats, or squared errors.
"""

import sys
from pathlib import Path

import polars as pl

outputs = Path(sys.argv[1] if len(sys.argv) > 1 else "reptide-state/outputs")
predictions = pl.read_ndjson(outputs / "predictions.jsonl")
scores = pl.read_ndjson(outputs / "scores.jsonl").filter(pl.col("outcome") == "scored")

losses = scores.select("task", "id", "seen", "waited_s").hstack(scores.select("loss").unnest("loss"))
by_task = (
    losses.group_by("task")
    .agg(pl.len().alias("labels"), pl.col("base", "recent", "theta", "adapted", "served").mean().round(3))
    .sort("labels", "task", descending=[True, False])
)
by_experience = (
    losses.group_by(labels_before=(pl.col("seen") // 20 * 20))
    .agg(pl.len().alias("labels"), pl.col("base", "served").mean().round(3))
    .sort("labels_before")
)
unanswered = predictions.join(scores, on=["task", "id"], how="anti")
print(
    f"{len(predictions):,} predictions, {len(unanswered):,} of them without a label yet; mean loss by task:"
)
print(by_task)
print("and by how many labels of its own a task had before:")
print(by_experience)
