"""Python imports this module when it starts, if this folder is in PYTHONPATH."""

import tests.support.gpu_stand_in.activate  # noqa: F401
