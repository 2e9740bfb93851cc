"""A model of its own for every user, in ten lines: served before each label, learned from it after."""

import numpy as np

from reptide import Category, Classification, Numeric, Online

draws = np.random.default_rng(0)
model = Online([Numeric("price"), Category("country")], Classification(("no", "yes")))
for visit in range(500):
    user, price = int(draws.integers(8)), float(draws.uniform(0, 80))
    event = {"price": price, "country": "NL" if user % 2 else "TR"}
    served = model.predict_one(user, event, id=visit, at=visit)
    bought = "yes" if price < 10 + 8 * user else "no"  # each user has a limit of their own
    model.learn_one(user, bought, id=visit, at=visit)
print(f"user {user}, price {price:.0f}: {bought!r} was given {served[bought]:.2f}")
print(model.report())
