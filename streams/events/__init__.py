"""Events: a record and its place in the log, what it must be, and what is said of it."""
