"""``python -m serve_app CONFIG``; see ``launch.command``."""

import sys

from serve_app.launch.command import main

if __name__ == "__main__":
    sys.exit(main())
