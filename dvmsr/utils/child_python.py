"""Modules of this package as programs, in a new Python."""

import sys


def command(module: str, *arguments: str) -> list[str]:
    """What runs a module with arguments, from the same import path as this process.

    Unlike `python -m`, which imports the files of the current folder before those of libraries.
    """
    path = [entry for entry in sys.path if isinstance(entry, str)]
    program = (
        f"import sys; sys.path[:] = {path!a}; import runpy; "
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    return [sys.executable, "-c", program, *arguments]
