#!/bin/sh
# Your own checkpoint: train on photographs, export, enlarge a picture without PyTorch.
#
#     pip install ".[train,export]"
#     examples/checkpoint.sh photos/ photo.jpg 50000    # folder, picture, steps; writes to run/
set -eu
photographs=$1 picture=$2 steps=$3

dvmsr train --data "$photographs" -o run --init student --steps "$steps" --lr 2e-4
dvmsr-export onnx run/last.safetensors -o run/own.onnx         # compared with PyTorch before it appears
dvmsr parity run/last.safetensors run/own.onnx                 # again; with --layers layer by layer
dvmsr-infer "$picture" --model run/own.onnx -o run/large.png
