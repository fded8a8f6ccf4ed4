"""What operation ids begin with, before the request_id: who was asked, and for which work.

A host gets a backend's operation id as its request_id, so that there it is
`host_training_op_training_{request_id}`.
"""

from __future__ import annotations

BACKEND_TRAINING = "op_training_"
BACKEND_DATA = "op_data_"
HOST_TRAINING = "host_training_"
HOST_DATA = "host_data_"
