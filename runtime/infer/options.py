"""What `dvmsr-infer` was told, and whether that makes sense."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dvmsr.errors import UsageError
from dvmsr.runtime.images.formats import FORMATS, LOSSY
from dvmsr.runtime.infer.job import Job
from dvmsr.runtime.infer.plan import TEMPLATE, check_template
from dvmsr.runtime.storage.places import identity, place, stored
from dvmsr.runtime.storage.remote import Remote
from dvmsr.runtime.storage.stream import STREAM
from dvmsr.runtime.video.codecs import check_options
from dvmsr.runtime.video.containers import WRITTEN, is_video
from dvmsr.utils.sizes import parse_bytes
from dvmsr.weights.registry import DEFAULT, ENGINE, at_scale


@dataclass(frozen=True)
class Options:
    """About files.

    Raises:
        UsageError: if they do not fit each other.
    """

    inputs: Sequence[str] = ()
    output: str | None = None
    template: str = TEMPLATE
    extension: str | None = None
    """Of the results, with its dot."""
    overwrite: bool = False
    skip_existing: bool = False
    manifest: Path | None = None
    resume: bool = False
    quality: int | None = None
    """Of JPEG, WebP and AVIF, from 1 to 100; None for that of the image."""
    to_srgb: bool = False
    codec: str | None = None
    """Of videos; None for their own."""
    crf: int | None = None
    """Quality of videos; None for the codec's."""
    as_json: bool = False

    @property
    def streams(self) -> bool:
        """Whether standard input or output is one of the files."""
        return STREAM in (*self.inputs, self.output)

    def __post_init__(self) -> None:
        check_template(self.template)
        if self.overwrite and self.skip_existing:
            raise UsageError("--skip-existing keeps results, --overwrite replaces them; give one")
        check_options(self.codec, self.crf)
        if self.streams:
            self._check_stream()

    def _check_stream(self) -> None:
        if len(self.inputs) != 1:
            raise UsageError("- takes a single image; leave out the others")
        (name,) = self.inputs
        if is_video(place(name)):
            raise UsageError(f"{name} is a video, which - cannot take; name a file with -o")
        if self.manifest is not None or self.skip_existing or self.resume:
            raise UsageError(
                "- takes a single image; leave out --manifest, --skip-existing and --resume"
            )
        if self.template != TEMPLATE:
            raise UsageError("- has no name; leave out --name")
        if (self.codec, self.crf) != (None, None):
            raise UsageError("- takes an image; leave out --codec and --crf")
        if self.extension in WRITTEN:
            raise UsageError(f"--format {self.extension[1:]} is for videos, which - cannot take")
        if self.as_json and self.output in (None, STREAM):
            raise UsageError(
                "--json would end up in the image on standard output; name a file with -o"
            )

    def check(self, jobs: Sequence[Job]) -> None:
        """Whether they fit what is to be done.

        Raises:
            UsageError: if not.
        """
        if self.manifest is not None:
            own = identity(self.manifest)
            for job in jobs:
                if own in (identity(job.source), identity(job.target)):
                    raise UsageError(
                        f"{self.manifest} cannot be both the manifest and an image; rename one"
                    )
        videos = [job for job in jobs if is_video(job.source)]
        if self.resume and self.manifest is None and not videos:
            raise UsageError("--resume goes on with a manifest; name it with --manifest")
        if (self.codec, self.crf) != (None, None) and not videos:
            raise UsageError("--codec and --crf are for videos; name one or leave them out")
        if not videos and self.extension in WRITTEN:
            raise UsageError(f"--format {self.extension[1:]} is for videos; name one")
        if videos and len(videos) == len(jobs):
            if self.quality is not None or self.to_srgb:
                raise UsageError("--quality and --to-srgb are for images; leave them out")
            if self.extension is not None and self.extension not in WRITTEN:
                known = ", ".join(name[1:] for name in WRITTEN)
                raise UsageError(f"--format of a video must be one of {known}")
        images = [job for job in jobs if not is_video(job.source)]
        formats = {FORMATS.get(job.target.suffix.lower()) for job in images}
        # None is the format of what comes from a stream, which is not known yet.
        if self.quality is not None and formats.isdisjoint((*LOSSY, None)):
            raise UsageError(
                "--quality is of JPEG, WebP and AVIF, and no result is one of these; leave it out"
            )
        for job in videos:
            if not (isinstance(job.source, Path) and isinstance(job.target, Path)):
                raise UsageError(f"{job.source} is a video; videos and results must be files here")


@dataclass(frozen=True)
class Model:
    """What computes, as `Upscaler.from_file` takes it."""

    name: str
    backend: str
    threads: int | None
    strip: int | None
    memory: int | None
    """Bytes."""
    trust_engine: bool = False


def read_manifest(name: str | None) -> Path | None:
    """Of `--manifest`.

    Raises:
        UsageError: if lines cannot be added to it.
    """
    if name == STREAM:
        raise UsageError("--manifest - is no file that can be gone on with; name one")
    found = None if name is None else stored(name)
    if isinstance(found, Remote):
        raise UsageError(f"{found} cannot be added to line by line; name a file here")
    return found


def read_model(
    name: str | None,
    engine: str | None,
    backend: str,
    threads: int | None,
    strip: int | None,
    memory: str | None,
    trust_engine: bool = False,
    scale: int | None = None,
) -> Model:
    """Of `--model`, `--scale` or `--engine`, and what belongs to them.

    Raises:
        UsageError: if they do not fit each other.
    """
    if engine is not None:
        if (name, scale) != (None, None) or backend not in ("auto", "tensorrt"):
            raise UsageError(
                "--engine names model and backend; leave out --model, --scale and --backend"
            )
        if not engine.lower().endswith(ENGINE):
            raise UsageError(f"{engine} is no engine, whose name ends in {ENGINE}; try --model")
        name, backend = engine, "tensorrt"
    if scale is not None:
        name = at_scale(name, scale)
    limit = None if memory is None else parse_bytes("--memory", memory)
    return Model(name or DEFAULT, backend, threads, strip, limit, trust_engine)


def check_cluster(address: str | None, workers: int | None, options: Options) -> None:
    """Whether the options of a cluster fit.

    Raises:
        UsageError: if not.
    """
    if workers is not None and address is None:
        raise UsageError("--workers are those of a cluster; name it with --ray")
    if address is not None and options.streams:
        raise UsageError("- cannot be sent to a cluster; leave out --ray, or name files")
