"""Labels that come late and out of order: each is learned under the features that its prediction was made of.

A heap holds what is still to come, as a queue or a table would. Some labels never come, one comes twice.
"""

from heapq import heappop, heappush

import numpy as np

from reptide import Classification, Numeric, Online

HOUR_S = 3600.0

draws = np.random.default_rng(1)
model = Online([Numeric("minutes")], Classification(("stays", "leaves")))
waiting: list[tuple[float, str, str, str]] = []
for visit in range(450):
    now = visit * 60.0
    while waiting and waiting[0][0] <= now:
        known, id, user, label = heappop(waiting)
        model.learn_one(user, label, id=id, at=known)
    n, minutes = int(draws.integers(12)), float(draws.exponential(10))
    served = model.predict_one(f"user {n}", {"minutes": minutes}, id=f"visit {visit}", at=now)
    if draws.random() < 0.9:
        label = "leaves" if minutes < 2 + 2 * n else "stays"  # each user has a patience of their own
        heappush(waiting, (now + draws.exponential(2 * HOUR_S), served.id, f"user {n}", label))

known, id, user, label = heappop(waiting)
print("a label:", model.learn_one(user, label, id=id, at=known))
print("again:  ", model.learn_one(user, label, id=id, at=known))
print(f"{len(waiting):,} labels are still to come")
print(model.report())
