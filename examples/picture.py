"""A picture: enlarge one in Python.

pip install .
python examples/picture.py photo.jpg large.png
"""

import sys

from PIL import Image

from dvmsr.runtime import Upscaler


def main(source: str, target: str) -> None:
    upscaler = Upscaler.from_file("student")  # or student-x2, paper, a checkpoint, an .onnx file
    with Image.open(source) as image:
        large = upscaler(image.convert("RGB"))
    large.save(target)
    print(f"{target}: {large.width}x{large.height}")


if __name__ == "__main__":
    main(*sys.argv[1:])
