import sys

from tests.faults.run import main

# Guarded: processes that are started from this one load it under another name.
if __name__ == "__main__":
    sys.exit(main())
