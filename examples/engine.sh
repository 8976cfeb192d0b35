#!/bin/sh
# TensorRT: an engine for RTX cards, built without one.
#
#     pip install ".[export,rtx,plugin]"
#     examples/engine.sh student x.engine
set -eu
model=$1 engine=$2

dvmsr-export trt "$model" --fp16 --target rtx --max 1080x1920 -o "$engine"
dvmsr info "$engine"    # precision, sizes, the plugin's layers
# On a machine with the card: dvmsr-infer photo.jpg --engine "$engine"
