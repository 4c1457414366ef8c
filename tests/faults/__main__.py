import signal
import sys

from tests.faults.run import main

# Guarded: processes that are started from this one load it under another name.
if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # in good order, with all that it has started
    sys.exit(main())
