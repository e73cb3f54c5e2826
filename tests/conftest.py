"""Settings every test shares."""

from hypothesis import settings

settings.register_profile("moda", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("moda")
