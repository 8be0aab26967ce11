"""Drempel: one press, one claimed face, one bit to the door, and a badge as an equal beside it.

Four zones run as four processes under four system users: `door`, `lens`, `vault` and `admin`.
They share no memory, no database and no device; all that crosses between them is in `link`.
"""

import os

# onnxruntime sends usage telemetry unless this is set before it is first imported, and every
# module that could import it lies below this package.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
