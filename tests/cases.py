"""How many cases a property gets: 2,000 with `scripts/test --full`, which sets DREMPEL_TESTS, else 300.

What a record must refuse (`tests/vault/test_protection_properties.py`) gets its 2,000 always.
"""

import os

from hypothesis import settings

MANY = 2000 if os.environ.get("DREMPEL_TESTS") == "full" else 300
many = settings(max_examples=MANY, deadline=None)
