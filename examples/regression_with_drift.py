"""A number whose law changes: the load of a machine against temperature, after one of them is repaired.

The repair is not announced: losses raise the drift alarm, and the machine's model is made of what came since.
"""

import numpy as np

from reptide import Numeric, Online, Regression

MACHINES, READINGS, REPAIR = 2, 600, 300
draws = np.random.default_rng(6)
slope = np.array([1.0, 2.0])
# The default detector is for thousands of labels a task; of a few hundred this one asks less before it speaks.
settings = {"outer.every": 256, "inner.lr": 0.05, "drift.options": {"threshold": 6.0, "min_instances": 20}}
model = Online([Numeric("temperature")], Regression(0, 200), settings=settings)
errors, alarms, last = [], list[int](), dict[int, float]()
for n in range(READINGS):
    if n == REPAIR:
        slope[0] = 4.0
    machine, temperature = n % MACHINES, float(draws.uniform(10, 40))
    load = float(20 + slope[machine] * temperature + draws.normal(scale=2))
    served = model.predict_one(machine, {"temperature": temperature}, id=n, at=n)
    learned = model.learn_one(machine, load, id=n, at=n)
    if machine == 0:
        errors.append((n, abs(served - load), abs(served.theta - load), abs(last.get(0, 0.0) - load)))
        if learned.alarm:
            alarms.append(n)
    last[machine] = load

print(f"machine 0 was repaired at reading {REPAIR}, and its drift alarm went off at {alarms}")
parts = {"before": (100, REPAIR), "right after": (REPAIR, REPAIR + 60), "later": (480, READINGS)}
off = {
    part: np.mean([errors_of for n, *errors_of in errors if begin <= n < end], axis=0)
    for part, (begin, end) in parts.items()
}
for part, (ours, theta, last_label) in off.items():
    print(
        f"{part:>11}: off by {ours:4.1f} as served, {theta:4.1f} by theta, {last_label:4.1f} by the last label"
    )
