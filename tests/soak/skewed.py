"""`python -m tests.soak.skewed SECONDS serve ...`: a controller whose wall clock is wrong by so many seconds."""

import sys
import time

if __name__ == "__main__":
    _offset, _real = float(sys.argv.pop(1)), time.time
    time.time = lambda: _real() + _offset

    from controller.main import main

    sys.exit(main())
