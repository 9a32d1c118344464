"""The console script `mmcl`: what has to be done before anything large is imported."""

import os

from mmcl.forced_devices import give_threads
from mmcl.huge_pages import begin_again_with_them


def main() -> None:
    """Begin with large pages and threads enough, then go on with the command line."""
    begin_again_with_them()
    give_threads(os.environ)
    from mmcl import cli

    cli.main()
