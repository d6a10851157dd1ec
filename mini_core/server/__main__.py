import sys

from mini_core.server.daemon import main

sys.exit(main())
