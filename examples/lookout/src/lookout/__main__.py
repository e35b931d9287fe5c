"""The entry point: `lookout`, `python -m lookout`. The only module that patches."""

from gevent import monkey

# Before anything else is imported: whoever imports `socket` or `ssl` first and keeps a name from
# it keeps the blocking function, and a single blocking call stops every greenlet of the process.
# Here and nowhere else: a module that patches as a side effect of its import would change the
# world of every test and tool that merely looks at it.
monkey.patch_all()

import sys  # noqa: E402

from lookout.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
