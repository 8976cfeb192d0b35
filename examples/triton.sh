#!/bin/sh
# A model repository for Triton Inference Server, and a picture enlarged by a server that serves it.
#
#     pip install . "tritonclient[http]"
#     examples/triton.sh models/                                      # then: tritonserver --model-repository=models/
#     examples/triton.sh models/ localhost:8000 photo.jpg large.jpg
set -eu
models=$1

[ -d "$models/student" ] || dvmsr-export triton student -o "$models"
[ $# -gt 1 ] || exit 0
python3 - "$2" "$3" "$4" <<'END'
import sys
from pathlib import Path

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput

server, picture, result = sys.argv[1:]
given = InferInput("picture", [1], "BYTES")
given.set_data_from_numpy(np.array([Path(picture).read_bytes()], np.object_))
answer = InferenceServerClient(server).infer("student-pictures", [given])
Path(result).write_bytes(answer.as_numpy("picture")[0])
for text in answer.as_numpy("warnings"):
    print(text.decode(), file=sys.stderr)
END
