"""What `dvmsr-infer` was told about its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dvmsr.errors import UsageError
from dvmsr.runtime.infer.job import Job
from dvmsr.runtime.infer.plan import TEMPLATE
from dvmsr.runtime.video.codecs import check_options
from dvmsr.runtime.video.containers import WRITTEN, is_video


@dataclass(frozen=True)
class Options:
    """What the command was told about its files."""

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

    def __post_init__(self) -> None:
        if self.overwrite and self.skip_existing:
            raise UsageError("--skip-existing keeps results, --overwrite replaces them; give one")
        check_options(self.codec, self.crf)

    def check(self, jobs: Sequence[Job]) -> None:
        """Whether they fit what is to be done.

        Raises:
            UsageError: if not.
        """
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
        for job in videos:
            if not (isinstance(job.source, Path) and isinstance(job.target, Path)):
                raise UsageError(f"{job.source} is a video; videos and results must be files here")
