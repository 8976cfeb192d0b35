"""What `dvmsr serve` does."""

from __future__ import annotations

import re
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dvmsr.errors import MissingComponentError, UsageError
from dvmsr.runtime.infer.options import Options, check_cluster
from dvmsr.runtime.serving.limits import Limits
from dvmsr.runtime.serving.models import DEFAULT, Models, open_models
from dvmsr.utils import console
from dvmsr.utils.sizes import in_words, parse_bytes

_LEAST_TOKEN = 16
"""Characters."""
_HOST = re.compile(r"[\w.-]+|\[[0-9A-Fa-f:.]+\]")


def run(
    models: Sequence[str],
    host: str,
    port: int,
    names: Sequence[str],
    token: str | None,
    threads: int | None,
    max_pixels: int,
    max_bytes: str,
    queue: int,
    per_client: int,
    time_limit: float,
    open_page: bool,
    ray: str | None,
    workers: int | None,
) -> None:
    """The command: load, listen, serve until a signal comes."""
    limits = Limits(
        max_pixels, parse_bytes("--max-bytes", max_bytes), queue, per_client, time_limit
    )
    if token is not None and (len(token) < _LEAST_TOKEN or not token.isascii() or " " in token):
        raise UsageError(
            f"--token must have at least {_LEAST_TOKEN} characters, ASCII without spaces; take "
            "random ones"
        )
    for name in names:
        if not _HOST.fullmatch(name):
            raise UsageError(
                f"--allowed-host {name} is more than the name of a host; leave out http:// and "
                "the port"
            )
    check_cluster(ray, workers, Options())
    try:
        from dvmsr.runtime.serving import application, server
    except ModuleNotFoundError as error:
        raise MissingComponentError(
            f"dvmsr serve needs {error.name}: pip install 'dvmsr[serve]'"
        ) from None
    with server.listen(host, port) as bound:
        local = server.is_loopback(bound)
        if not local and token is None:
            raise UsageError(
                f"--host {host} is reached from other machines, which needs a token; set --token "
                "or DVMSR_TOKEN, or listen at 127.0.0.1"
            )
        own = {"localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host}
        known = {name.lower() for name in (*own, *names)} if local or names else None
        url = server.url(host, bound)
        with _computing(models or DEFAULT, threads, ray, workers) as opened:
            offered = ", ".join(
                f"{name} ({each.scale}x)" for name, each in opened.described.items()
            )
            console.notice(
                f"enlarging with {offered}; pictures of up to {limits.pixels / 1e6:g} megapixels "
                f"and {in_words(limits.bytes)}; Ctrl-C ends"
            )
            console.data(url)
            if open_page:
                webbrowser.open(url)
            server.serve(application.build(opened, limits, known, token), bound)


@contextmanager
def _computing(
    models: Sequence[str], threads: int | None, ray: str | None, workers: int | None
) -> Iterator[Models]:
    """The networks, in this process or on a cluster."""
    if ray is None:
        with console.warnings_to():
            opened = open_models(models, threads)
        yield opened
    else:
        from dvmsr.runtime.serving.ray import Replicas

        with Replicas(ray, models, threads, workers) as replicas:
            yield replicas
