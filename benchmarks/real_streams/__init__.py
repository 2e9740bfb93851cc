"""Streams of others through the embedded program with nothing but defaults, beside baselines on the same labels.

`sources` are the streams, `prepared` their rows as arrays, `ours` the program, `baselines` and `wide_deep` what it is
held against, `judge` the figures. The command is `python -m benchmarks.real_streams`.
"""
