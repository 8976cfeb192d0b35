"""`python -m dvmsr.compat script.py ARGUMENTS` or `python -m dvmsr.compat -m module ARGUMENTS`:
runs it as `python` would, with the stand-ins of `dvmsr.compat` in place."""

import importlib.util
import runpy
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import TracebackType

from dvmsr.compat.stand_ins import install

USAGE = "usage: python -m dvmsr.compat script.py ARGUMENTS, or -m module ARGUMENTS"

EXAMPLES = """
Examples:
  python -m dvmsr.compat train.py --epochs 2
  python -m dvmsr.compat -m package.train"""


def main(arguments: list[str]) -> None:
    """Ends as the script ends; exit code 2 where none is named or found."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(f"{USAGE}\n\n{__doc__}\n{EXAMPLES}")
        return
    as_module = arguments[:1] == ["-m"]
    sys.argv = arguments[as_module:]
    if not sys.argv or sys.argv[0].startswith("-"):
        sys.exit(_usage_error(USAGE))
    script = Path(sys.argv[0])
    if not as_module and not script.exists():
        sys.exit(_usage_error(f"{script} does not exist; check the path"))
    if not as_module and script.is_dir() and not (script / "__main__.py").exists():
        sys.exit(_usage_error(f"{script} is a folder without a __main__.py; name a script in it"))
    install()
    sys.excepthook = _show_without_us
    if as_module:
        if reason := _not_to_be_run(sys.argv[0]):
            sys.exit(_usage_error(reason))
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(script.resolve().parent)
        runpy.run_path(str(script), run_name="__main__")


def _not_to_be_run(module: str) -> str:
    """Why there is no such module to be run; empty if there is. What the packages above it raise
    when they are imported is raised."""
    if module.endswith(".py") and Path(module).exists():
        return f"{module} is a file; leave out -m, or write {module.removesuffix('.py')}"
    if not all(part.isidentifier() for part in module.split(".")):
        return f"{module} is no name of a module; write it with dots, as in package.module"
    spec = _find(module)
    if spec is None:
        return f"there is no module {module}; check the name"
    if spec.submodule_search_locations is not None and _find(f"{module}.__main__") is None:
        return f"{module} is a package without a __main__; name one of its modules"
    return ""


def _find(module: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(module)
    except ModuleNotFoundError as error:
        if f"{module}.".startswith(f"{error.name}."):
            return None
        raise


def _usage_error(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


def _show_without_us(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """The traceback from the script's own lines on."""
    while traceback is not None and (
        traceback.tb_frame.f_globals.get("__name__") == "runpy"
        or traceback.tb_frame.f_code.co_filename == __file__
    ):
        traceback = traceback.tb_next
    sys.__excepthook__(kind, error.with_traceback(traceback), traceback)


if __name__ == "__main__":
    main(sys.argv[1:])
