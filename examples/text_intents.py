"""Intents of messages by tenant, with prototypes: a tenant's model is the mean of its own examples of each intent.

Tenants mean different things by the same words: "open" is an order in a shop and a fault at a plumber's. So one model
of all tenants must be wrong, and a tenant's own is right after a few messages.
"""

import numpy as np

from reptide import Classification, Online, Text

INTENTS = ("order", "fault", "question")
WORDS = [
    ["open", "start", "new one please"],
    ["close", "stop it", "end this"],
    ["what is the price", "how long", "why so"],
]
POLITE = ["", "hi, ", "hello there, ", "please: "]

draws = np.random.default_rng(4)
means = {f"tenant {n}": draws.permutation(3) for n in range(4)}  # which group of words is which intent
model = Online(
    [Text("message")], Classification(INTENTS), settings={"learner": "prototype", "outer.every": 256}
)
right = {"served": 0, "last label": 0}
last: dict[str, str] = {}
for n in range(700):
    tenant, group = f"tenant {draws.integers(4)}", int(draws.integers(3))
    message = str(draws.choice(POLITE)) + str(draws.choice(WORDS[group]))
    intent = INTENTS[means[tenant][group]]
    served = model.predict_one(tenant, {"message": message}, id=n, at=n)
    if n >= 400:
        right["served"] += served.likeliest == intent
        right["last label"] += last.get(tenant) == intent
    model.learn_one(tenant, intent, id=n, at=n)
    last[tenant] = intent
print(f"{tenant}, {message!r}: {served.likeliest}, with {served[intent]:.2f} for {intent}")
print({name: f"{count / 300:.0%} of the last 300" for name, count in right.items()})
print(model.report())
