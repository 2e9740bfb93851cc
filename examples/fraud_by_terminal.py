"""Fraud by terminal: some terminals are taken over for a while, and a chargeback tells so hours late.

The base rate says nothing of it, and what is true of one terminal is not of the next. The last line is how much fraud
is among the payments that look worst.
"""

import numpy as np

from reptide import Classification, Cyclic, Numeric, Online

TERMINALS, HOUR_S, HOURS, EACH_HOUR, LATE_HOURS = 6, 3600, 100, 24, 2
draws = np.random.default_rng(5)
taken_from = draws.permutation(TERMINALS) * 16  # the hour
model = Online(
    [Numeric("amount"), Cyclic("hour", period=24)],
    Classification(("fine", "fraud")),
    settings={"outer.every": 512, "inner.lr": 0.05},
)
payments: list[list[dict[str, object]]] = []
found: list[tuple[float, bool]] = []
for hour in range(HOURS):
    if hour >= LATE_HOURS:
        labels = [{**row, "known": hour * HOUR_S} for row in payments[hour - LATE_HOURS]]
        model.learn_many(labels, task="terminal", label="fraud", id="id", at="known")
    rows = []
    for n in range(EACH_HOUR):
        terminal, amount = int(draws.integers(TERMINALS)), float(draws.lognormal(3, 0.8))
        taken = taken_from[terminal] <= hour < taken_from[terminal] + 30
        fraud = draws.random() < (0.8 if taken and amount > 15 else 0.002)
        row = {"terminal": terminal, "amount": amount, "hour": hour % 24, "at": hour * HOUR_S}
        rows.append({**row, "id": f"{hour}-{n}", "fraud": "fraud" if fraud else "fine"})
    payments.append(rows)
    served = model.predict_many(rows, task="terminal", id="id", at="at")
    if hour >= HOURS // 2:
        found += [(p["fraud"], row["fraud"] == "fraud") for p, row in zip(served, rows, strict=True)]

print(model.report())
looked = sorted(found, key=lambda pair: pair[0], reverse=True)[: len(found) // 20]
of_all, of_looked = sum(fraud for _, fraud in found), sum(fraud for _, fraud in looked)
print(f"{of_all / len(found):.1%} of {len(found):,} payments are fraud, of the {len(looked)} that look worst "
      f"{of_looked / len(looked):.0%}")  # fmt: skip
