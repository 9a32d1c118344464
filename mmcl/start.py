"""The console script `mmcl`: what has to be done before anything large is imported."""

from mmcl.huge_pages import begin_again_with_them


def main() -> None:
    """Begin with large pages, then go on with the command line."""
    begin_again_with_them()
    from mmcl import cli

    cli.main()
