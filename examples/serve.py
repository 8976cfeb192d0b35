"""A service: enlarge pictures by HTTP, as a client that waits for its turn.

pip install ".[serve]"
dvmsr serve &                                    # prints its address
python examples/serve.py http://127.0.0.1:8000/ photo.jpg large.jpg
"""

import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

BUSY = (429, 503)


def enlarge(url: str, picture: bytes) -> bytes:
    """The file of a picture to that of a larger one."""
    while True:
        request = urllib.request.Request(f"{url}enlarge?model=student-x2", picture)
        request.add_header("Content-Type", "application/octet-stream")
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.read()
        except urllib.error.HTTPError as refusal:
            wait = refusal.headers["Retry-After"]
            if refusal.code not in BUSY or wait is None:
                raise SystemExit(refusal.read().decode()) from None
            time.sleep(int(wait))


if __name__ == "__main__":
    url, source, target = sys.argv[1:]
    Path(target).write_bytes(enlarge(url, Path(source).read_bytes()))
    print(target)
