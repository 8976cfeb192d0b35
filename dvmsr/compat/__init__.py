"""Stand-ins for mamba-ssm, causal-conv1d and the `selective_scan_cuda*` modules, over `dvmsr.ops`.

    from dvmsr import compat
    compat.install()
    import network_that_imports_mamba_ssm

or, for a script that stays as it is, `python -m dvmsr.compat script.py ARGUMENTS`. Nothing changes
before `install`. What there is and what is refused: docs/compat.md.
"""

from dvmsr.compat.refusals import NotSupportedError
from dvmsr.compat.stand_ins import importing, install, uninstall

__all__ = ["NotSupportedError", "importing", "install", "uninstall"]
