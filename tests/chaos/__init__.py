"""What the gateway makes of trouble, and that nothing of it is left afterwards."""

import pytest

# So that a failed check of the shared helpers shows what it found.
pytest.register_assert_rewrite("tests.chaos.watch")
