"""How hypothesis chooses: the same examples each time, however slow the machine is; ``many`` tries others, and more.

``--hypothesis-profile many`` chooses the latter. Some tests have their number of examples by settings of their own.
"""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "gradclip", derandomize=True, deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("many", settings.get_profile("gradclip"), derandomize=False, max_examples=3000)
settings.load_profile("gradclip")
