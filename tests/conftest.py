"""What every test shares: one thread, which equal bits are promised on, and the same examples every run."""

import streams  # noqa: F401, I001 - first: sets what equal bits need of the environment
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

settings.register_profile(
    "reptide",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("reptide")
