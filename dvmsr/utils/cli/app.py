"""What the three command lines share: the error boundary.

Data goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dvmsr.errors import INTERRUPTED, DvmsrError, UsageError, explain
from dvmsr.utils import signals
from dvmsr.utils.console import notice
from dvmsr.utils.threads import NO_MORE, is_refused

if TYPE_CHECKING:
    import typer


def run_app(build: Callable[[], typer.Typer]) -> None:
    """Run a typer application and turn every expected failure into one line and an exit code.

    Args:
        build: makes the application; called late so that `--help` imports little.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # for file names that are no text
    try:
        if "" in sys.argv[1:]:  # an unset shell variable; as a path it would mean this folder
            raise UsageError("an argument is empty; name a file or leave it out")
        with signals.handled():
            app = build()
            app.pretty_exceptions_enable = False
            exit_code = app(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except signals.Ended as ended:
        exit_code = ended.exit_code
        signals.end_at_once(exit_code)
    except DvmsrError as error:
        notice(f"error: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.filename is not None and not is_refused(error):
            notice(f"error: {explain(error, error.filename)}")
            sys.exit(DvmsrError.exit_code)
        notice(f"error: {_explain_nameless(error)}")
        if sys.stdout is sys.__stdout__ and sys.stdout is not None:  # it is flushed again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(DvmsrError.exit_code)
    except MemoryError:
        notice("error: there is not enough memory; end other programs or take smaller input")
        sys.exit(DvmsrError.exit_code)
    except Exception as error:
        if is_refused(error):  # where nobody foresaw it
            notice(f"error: {NO_MORE}")
            sys.exit(DvmsrError.exit_code)
        if not hasattr(error, "show"):
            raise
        _show_usage_error(error)  # typer's own; its class has moved between versions
        sys.exit(UsageError.exit_code)
    if exit_code == INTERRUPTED:
        notice("interrupted")
    sys.exit(exit_code)


def _explain_nameless(error: OSError) -> str:
    """Of a failure that is no file's."""
    if is_refused(error):
        return NO_MORE
    try:
        os.getcwd()  # noqa: PTH109
    except OSError:
        return "the current folder no longer exists; change to another"
    if error.errno == errno.ENOSPC:
        return "standard output has no space left; make room or send it elsewhere"
    return f"reading or writing failed ({error.strerror or error}); check standard output and disks"


def _show_usage_error(error: Any) -> None:
    """One line; the help of a command that was given nothing is shown as it is."""
    if type(error).__name__ == "NoArgsIsHelpError" or getattr(error, "ctx", None) is None:
        error.show()
        return
    text = " ".join(error.format_message().split()).rstrip(".")
    notice(f"error: {text[:1].lower()}{text[1:]}; see {error.ctx.command_path} --help")
