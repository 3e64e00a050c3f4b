"""Settings of Hypothesis for the unit tests: the same examples for everybody, no deadline on a shared machine."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "unit", deadline=None, max_examples=60, derandomize=True, database=None,
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.function_scoped_fixture),
)  # fmt: skip
settings.load_profile("unit")
