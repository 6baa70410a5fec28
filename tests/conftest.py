"""Settings for every test; fixtures live beside the tests that share them."""

import signal

from hypothesis import settings

# A job in the background of a shell is born with SIGINT ignored, and so would be the daemons that
# tests start; a handler of our own is the default again in whatever is executed.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine must not fail a property, and a failure prints how to replay it.
settings.register_profile("suite", deadline=None, max_examples=100, print_blob=True)
settings.load_profile("suite")
