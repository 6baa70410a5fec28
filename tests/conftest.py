"""Settings for every test; fixtures live beside the tests that share them."""

from hypothesis import settings

# A busy machine must not fail a property, and a failure prints how to replay it.
settings.register_profile("suite", deadline=None, max_examples=100, print_blob=True)
settings.load_profile("suite")
