"""`python -m trainer.launch.on_ray`."""

import sys

from trainer.launch.on_ray.driver import main

if __name__ == "__main__":
    sys.exit(main())
