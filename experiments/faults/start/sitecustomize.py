"""Python imports this when it starts, in the driver and in Ray's workers, where its folder is on PYTHONPATH."""

import os

if os.environ.get("INJECTED_FAULTS"):
    from experiments.faults.inside import watch_imports

    watch_imports()
