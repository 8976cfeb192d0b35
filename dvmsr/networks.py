"""Networks in PyTorch, ours and other people's, by name.

A network is named as a model of dvmsr's, a checkpoint of DVMSR, or `package.module:factory`: a
function without arguments that returns a ready `torch.nn.Module`, weights included. It may also be
such a module itself.
"""

import importlib
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from dvmsr import checkpoint
from dvmsr.errors import (
    DvmsrError,
    IncompatibleModelError,
    MissingComponentError,
    UsageError,
    summary,
)
from dvmsr.utils.paths import IMPORT_PATH, is_file
from dvmsr.weights.registry import CHECKPOINT_NAMES, CHECKPOINTS, find_checkpoint


def load(model: str) -> nn.Module:
    """A network in eval mode whose weights need no gradients.

    What an import path names is looked for among the installed packages, then in the current
    folder, and runs where its weights lie, in their type. Weights that it draws at random are the
    same every time, so that one command can be held to what another has made of the network.

    Raises:
        UsageError: if there is no such model, file, module or attribute.
        DvmsrError: if it cannot be read, or the factory or what it imports fails.
        MissingComponentError: if what it imports is not installed.
        IncompatibleModelError: if the file is not a checkpoint of DVMSR, or what the import path
            names is or returns no `torch.nn.Module`.
    """
    path = Path(model)
    if path.suffix.lower() in CHECKPOINTS:
        module: nn.Module = checkpoint.load(path)
    elif model in CHECKPOINT_NAMES:
        module = checkpoint.load(find_checkpoint(model))
    elif match := IMPORT_PATH.fullmatch(model):
        with _same_random_numbers():
            module = _make(model, _find(*match.groups()))
    else:
        raise UsageError(
            f"no model named {model}; there is {', '.join(CHECKPOINT_NAMES)}, or name a "
            f"checkpoint ending in {', '.join(CHECKPOINTS)} or a package.module:factory"
        )
    for name, weight in (*module.named_parameters(), *module.named_buffers()):
        if isinstance(weight, (UninitializedBuffer, UninitializedParameter)):
            raise IncompatibleModelError(
                f"{model} has a {name} without a size yet; run the network once before returning it"
            )
    return module.eval().requires_grad_(False)


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Random numbers on the CPU that are the same in each process; those of the caller go on."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(0)
            np.random.seed(0)
            torch.default_generator.manual_seed(0)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _find(module: str, attribute: str) -> Any:
    if module.endswith(".py") and is_file(Path(module)):
        raise UsageError(
            f"{module}:{attribute} names a file; write the module, "
            f"{module.removesuffix('.py')}:{attribute}"
        )
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if _lacks_package(error) and f"{module}.".startswith(f"{error.name}."):
            raise UsageError(
                f"there is no module {error.name}, neither installed nor in the current folder; "
                "check the name"
            ) from None
        raise _missing(module, error) from None
    except DvmsrError:
        raise
    except (Exception, SystemExit) as error:
        raise DvmsrError(f"{module} cannot be imported ({summary(error)}); mend it") from None
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise UsageError(f"{module} has no {attribute}; name a factory that it has")
        found = getattr(found, name)
    return found


def _lacks_package(error: ModuleNotFoundError) -> bool:
    """Whether Python says it; a stand-in says what it lacks in words of its own."""
    return str(error).startswith("No module named")


def _missing(name: str, error: ModuleNotFoundError) -> DvmsrError:
    """What to say of a module that the network, or what makes it, imports and that is not there."""
    if not _lacks_package(error):
        return IncompatibleModelError(f"{name} cannot be imported: {error}")
    package, _, inner = (error.name or "").partition(".")
    if inner and package in sys.modules:
        return MissingComponentError(
            f"{name} needs {error.name}, which the {package} that is here lacks; install another "
            "version of it"
        )
    return MissingComponentError(f"{name} needs the package {error.name}; install it")


def refuse_script(name: str, module: nn.Module) -> None:
    """
    Raises:
        IncompatibleModelError: if it is TorchScript, of which nothing can be traced.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise IncompatibleModelError(
            f"{name} is TorchScript; give the torch.nn.Module that it was made of"
        )


def _make(name: str, factory: Any) -> nn.Module:
    if isinstance(factory, nn.Module):
        refuse_script(name, factory)
        return _unwrapped(factory)
    if not callable(factory):
        raise UsageError(f"{name} cannot be called; name a function that returns the network")
    try:
        module = factory()
    except (MemoryError, DvmsrError):
        raise
    except ModuleNotFoundError as error:
        raise _missing(name, error) from None
    except (Exception, SystemExit) as error:
        raise DvmsrError(
            f"{name} failed ({summary(error)}); it must return the network without being given "
            "anything"
        ) from None
    if not isinstance(module, nn.Module):
        raise IncompatibleModelError(
            f"{name} returns an object of type {type(module).__name__}, not a torch.nn.Module; "
            "return the network"
        )
    refuse_script(f"what {name} returns", module)
    return _unwrapped(module)


def _unwrapped(module: nn.Module) -> nn.Module:
    """What torch.compile or (Distributed)DataParallel was given, which has the parameters of
    `forward` that the wrapper does not tell."""
    while True:
        if isinstance(compiled := module._modules.get("_orig_mod"), nn.Module):
            module = compiled
        elif isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            module = module.module
        else:
            return module
