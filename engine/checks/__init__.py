"""What every model, learner, detector and encoder must keep, as functions whose names are the promises.

`engine.checks.suite` runs those that a plug-in of a kind must keep. A promise that is broken raises `CheckFailed`,
whose message says what is wrong and how to mend it. The idea of conformance checks as public functions is river's
and scikit-learn's.
"""
