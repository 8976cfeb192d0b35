"""A crop of one photograph, enlarged by four methods, beside the original.

    python benchmarks/quality/crops.py examples/chelsea.png RLFN_CHECKPOINT docs/examples/crops.png

These are bicubic interpolation, RLFN, the bundled student and the paper's weights, which are
fetched if they are not there. The photograph is reduced to a quarter as for the test sets. Each
crop is shown with its PSNR-Y over the whole picture, every pixel twice as wide and high.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from dvmsr.data.imresize import imresize
from dvmsr.data.pairs import Pixels, read_rgb, reduce
from dvmsr.eval.metrics import psnr_y
from dvmsr.runtime import Upscaler

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import rlfn

SCALE, ZOOM, GAP, LABEL = 4, 2, 8, 22


def by_rlfn(lr: Pixels, checkpoint: Path) -> Pixels:
    image = torch.from_numpy(lr).permute(2, 0, 1)[None].float()  # the released weights take 0..255
    with torch.inference_mode():
        result = rlfn.load(checkpoint)(image)
    return (result[0].permute(1, 2, 0).clamp(0, 255)).round().byte().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photograph", type=Path)
    parser.add_argument("rlfn", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--crop", default="150,80,120", help="X,Y,SIZE in the original")
    arguments = parser.parse_args()
    x, y, size = map(int, arguments.crop.split(","))
    pair = reduce(read_rgb(arguments.photograph), SCALE, str(arguments.photograph))
    columns: dict[str, Pixels] = {
        "bicubic": imresize(pair.lr, SCALE),
        "RLFN": by_rlfn(pair.lr, arguments.rlfn),
        **{name: np.asarray(Upscaler.from_file(name)(pair.lr)) for name in ("student", "paper")},
        "original": pair.hr,
    }
    side = size * ZOOM
    canvas = Image.new("RGB", (len(columns) * (side + GAP) - GAP, side + LABEL), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    for number, (name, image) in enumerate(columns.items()):
        left = number * (side + GAP)
        crop = Image.fromarray(image[y : y + size, x : x + size])
        canvas.paste(crop.resize((side, side), Image.Resampling.NEAREST), (left, LABEL))
        if name != "original":
            name += f"  {psnr_y(image, pair.hr, SCALE):.2f} dB"
        draw.text((left + side / 2, 2), name, "black", font, anchor="ma")
    canvas.save(arguments.picture, optimize=True)


if __name__ == "__main__":
    main()
