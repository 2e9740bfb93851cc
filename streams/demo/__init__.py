"""The demonstration: a year of real flights as a stream, a model of its own for every airport."""
