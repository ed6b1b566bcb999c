"""How hypothesis chooses in all tests: the same examples each time, and however slow the machine is."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "gradclip", derandomize=True, deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("gradclip")
