"""`dvmsr-infer`: enlarge images."""

from dataclasses import astuple
from typing import Annotated

import typer

from dvmsr.runtime.backends.table import NAMES
from dvmsr.utils.cli.app import run_app
from dvmsr.utils.cli.options import (
    HELP,
    AsJson,
    Offline,
    Overwrite,
    RayAddress,
    RayWorkers,
    Threads,
    TrustEngine,
    Version,
)
from dvmsr.weights.registry import DEFAULT, MODELS, STUDENTS

EXAMPLES = """\b
Examples:
  dvmsr-infer photo.jpg
  dvmsr-infer photo.jpg -o large.png
  dvmsr-infer holiday/ extra.webp -o enlarged/
  dvmsr-infer photo.jpg --scale 2
  dvmsr-infer photo.jpg --model paper
  dvmsr-infer photo.jpg --model my_model.onnx --backend portable
  dvmsr-infer *.png -o enlarged/ --json > report.json
  dvmsr-infer archive/ -o enlarged/ --manifest enlarged.jsonl --resume
  dvmsr-infer "photos/**/*.jpg" -o enlarged/ --name "{stem}-large{ext}" --format webp
  dvmsr-infer - < photo.jpg > large.jpg
  dvmsr-infer panorama.tif --memory 2G
  dvmsr-infer s3://bucket/photos/ -o s3://bucket/enlarged/
  dvmsr-infer clip.mp4 -o large.mp4
  dvmsr-infer /shared/photos/ -o /shared/enlarged/ --ray ray://head:10001
  dvmsr-infer photo.jpg --engine half.engine
"""


def main() -> None:
    """Entry point of the console script."""
    run_app(build_app)


def build_app() -> typer.Typer:
    """The command line as a typer application."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command("dvmsr-infer", epilog=EXAMPLES, context_settings=HELP)(infer)
    return app


def infer(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IN",
            help="Images, videos, folders of images (searched deeply), patterns, or - for standard "
            "input; names of files, or URLs: s3://, gs://, https:// (pip install "
            "'dvmsr[remote]').",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            help="A file for one image, a folder for several, in which their folders are made "
            "again, or - for standard output; by default results lie beside their images. May be a "
            "URL, too.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help=f"A name ({', '.join(MODELS)}), or a .onnx, .safetensors, .pth or .engine file.",
            show_default=DEFAULT,
        ),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(
            metavar="|".join(str(scale) for scale in sorted(STUDENTS.values())),
            help="Enlarge so many times, with the network of dvmsr's own that does.",
            show_default="4",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A TensorRT engine: --model FILE --backend tensorrt. An engine is executable "
            "code: take one only from whom you trust.",
        ),
    ] = None,
    trust_engine: TrustEngine = False,
    backend: Annotated[
        str,
        typer.Option(
            metavar="|".join(NAMES),
            help="ONNX Runtime with native or portable operators or, with cuda, on a GPU; PyTorch "
            "for a checkpoint; TensorRT for an engine.",
        ),
    ] = "auto",
    threads: Threads = None,
    strip: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="ROWS",
            help="Compute so many rows at once. Default: what is fast and fits.",
            show_default=False,
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Most memory for an image, such as 2G. Default: half of what is free.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="TEMPLATE",
            help="Names of the results; {suffix} is the image's own extension.",
            show_default="{stem}_x{scale}{ext}",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="EXT",
            help="Format of the results: png, jpg, webp, tif, bmp, gif or avif; of videos mp4, "
            "mov, mkv or webm.",
            show_default="the image's",
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            metavar="1-100",
            help="Of JPEG, WebP and AVIF. Default: a JPEG's own, else 95, 95 and 90.",
            show_default=False,
        ),
    ] = None,
    to_srgb: Annotated[
        bool,
        typer.Option("--to-srgb", help="Convert colours that have another profile to sRGB."),
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Pass over images whose results exist.")
    ] = False,
    manifest: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Add a line of JSON there for every image."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the manifest: pass over what it says is done and has not changed, "
            "make all else anew. Go on with unfinished videos.",
        ),
    ] = False,
    codec: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of videos: h264, hevc, vp9, av1, prores or ffv1 (lossless).",
            show_default="the video's",
        ),
    ] = None,
    crf: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Of videos: the lower, the better and larger. Default: 16 for h264, 18 for hevc, "
            "20 for vp9 and av1.",
            show_default=False,
        ),
    ] = None,
    ray: RayAddress = None,
    workers: RayWorkers = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    offline: Offline = False,
    version: Version = False,
) -> None:
    """Enlarge images with a trained network, on a processor or a GPU.

    Reads and writes PNG, JPEG, WebP, TIFF, BMP, GIF and AVIF. A result is called NAME_x4 after its
    image and the network's scale, and keeps the image's format unless OUT has an extension that
    says otherwise. Colour profiles, EXIF data, XMP, resolution, transparency, animations and, with
    pip install 'dvmsr[large]', 16 bits per channel are kept; a warning tells what a format cannot
    hold. The orientation is applied, a JPEG's compression is followed.

    Images are computed in strips of rows, with the same result as at once, by models that stream:
    the bundled one, checkpoints, and what dvmsr-export onnx --streaming writes. PNG, TIFF and JPEG
    that would not fit into memory are then read and written by rows, too (pip install
    'dvmsr[large]').

    paper and paper-ntire are the weights of the paper's authors (MIT licence), which are fetched
    from GitHub when they are first named, and kept.

    A .onnx file of another super-resolution network takes whole pictures. FILE@255 says that its
    values go from 0 to 255, FILE@1 to 1; without either that is tried out.

    Videos (pip install 'dvmsr[video]') keep sound, subtitles, times and colours; they count when
    they are named themselves, not in a folder. What is done lies in OUT.parts until all is, for
    --resume.

    An image that cannot be processed does not stop the others; the exit code is then 1. An
    interrupt (Ctrl-C) keeps the images that are finished, and --json tells of them.
    """

    from dvmsr.runtime.images.formats import FORMATS, read_extension
    from dvmsr.runtime.infer import batch
    from dvmsr.runtime.infer import options as told
    from dvmsr.runtime.video.containers import WRITTEN
    from dvmsr.utils.console import warnings_to

    computing = told.read_model(
        *(model, engine, backend, threads, strip, memory, trust_engine, scale)
    )
    options = told.Options(
        inputs=inputs,
        output=output,
        extension=read_extension(format, "--format", (*FORMATS, *WRITTEN)),
        overwrite=overwrite,
        skip_existing=skip_existing,
        manifest=told.read_manifest(manifest),
        resume=resume,
        quality=quality,
        to_srgb=to_srgb,
        codec=codec,
        crf=crf,
        as_json=as_json,
        **({} if name is None else {"template": name}),
    )
    told.check_cluster(ray, workers, options)
    with warnings_to():
        if ray is not None:
            from dvmsr.runtime.infer.ray import Cluster

            with Cluster(ray, computing, workers) as cluster:
                batch.run(cluster, options)
        else:
            from dvmsr.runtime.upscaler import Upscaler

            batch.run(batch.Here(Upscaler.from_file(*astuple(computing))), options)
