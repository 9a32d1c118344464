"""The one error that speaks to the user."""


class InputError(Exception):
    """Something the user gave is wrong: a config key, a path, a package, a damaged cache.

    The message is one line that says what is wrong and what to do. The command line prints it
    without a traceback and exits with code 2.
    """
