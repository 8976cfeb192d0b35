"""Segments and the source's other streams to one file; nothing is encoded again at a loss."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from heapq import merge
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from dvmsr.errors import DvmsrError
from dvmsr.runtime.video import sound
from dvmsr.runtime.video.codecs import Encoding
from dvmsr.runtime.video.encoding import encoding_to, tag
from dvmsr.runtime.video.library import decoding, import_av, url
from dvmsr.runtime.video.parts import Segment
from dvmsr.runtime.video.source import Video, is_cover, opened
from dvmsr.runtime.video.timeline import Timeline

_NOT_COPIED = ("major_brand", "minor_version", "compatible_brands", "encoder")
"""Metadata of a file that another muxer writes of its own."""
_OF_THE_OLD_PICTURES = ("encoder", "BPS", "DURATION", "NUMBER_OF_", "_STATISTICS")
"""Beginnings of the metadata that is wrong for the enlarged stream."""


def rehearse(video: Video, encoding: Encoding, target: Path, container: str) -> None:
    """Encode one picture and write it with the head of the result to memory.

    So what cannot be encoded or held shows before work begins; streams that are left out are told
    on stderr.

    Raises:
        DvmsrError: if the encoder or the container refuses.
    """
    av = import_av()
    segment, result = io.BytesIO(), io.BytesIO()
    with encoding_to(segment, video, encoding) as encoder:
        encoder.write(np.zeros((encoding.height, encoding.width, 3), np.uint16), 0)
        encoder.finish()
    segment.seek(0)
    with opened(video.path) as source, av.open(segment) as part, ExitStack() as stack:
        file = stack.enter_context(av.open(result, "w", format=container))
        _, copies = _add_streams(file, source, part.streams.video[0], video, encoding)
        for stream in source.streams:
            if stream.index not in copies and stream.index != video.stream:
                warnings.warn(
                    f"{target} cannot hold stream {stream.index} of {video.path} "
                    f"({_described(stream)}), which is left out",
                    stacklevel=2,
                )
        try:
            file.start_encoding()
        except (av.FFmpegError, ValueError) as error:
            stack.pop_all()  # closing it would raise the same again
            raise DvmsrError(
                f"{target} cannot hold the streams of {video.path} "
                f"({getattr(error, 'strerror', None) or error}); choose .mkv with -o"
            ) from None


def join(
    segments: Sequence[Segment], video: Video, encoding: Encoding, place: Path, container: str
) -> None:
    """Write the result.

    Raises:
        DvmsrError: if the source or a segment cannot be read.
        OSError: if the result cannot be written.
    """
    av = import_av()
    with (
        opened(video.path) as source,
        av.open(url(segments[0].path)) as part,
        av.open(str(place), "w", format=container) as file,
    ):
        main, copies = _add_streams(file, source, part.streams.video[0], video, encoding)
        packets = _video_packets(segments, video, main)
        enlarged = ((packet.dts * video.time_base, packet) for packet in packets)
        others = _other_packets(source, video, copies, strict=container not in ("matroska", "webm"))
        for _, packet in merge(enlarged, others, key=itemgetter(0)):
            file.mux(packet)


def _add_streams(
    file: Any, source: Any, part: Any, video: Video, encoding: Encoding
) -> tuple[Any, dict[int, Any]]:
    """The enlarged stream, and by their index in the source those that are copied."""
    for key, value in source.metadata.items():
        if key.lower() not in _NOT_COPIED:
            file.metadata[key] = value
    file.set_chapters(source.chapters())
    main, copies = None, {}
    for stream in source.streams:
        if stream.index == video.stream:
            made = main = file.add_stream_from_template(part, opaque=True)
            context = main.codec_context
            tag(context, video, encoding)
            if encoding.codec == "hevc" and file.format.name in ("mp4", "mov"):
                context.codec_tag = "hvc1"  # players of Apple's want that
            main.time_base = video.time_base
            context.framerate = video.rate
            if video.display is not None:
                main.set_display_matrix(_enlarged(video, encoding))
        elif stream.type == "attachment" and file.format.name != "matroska":
            continue  # the others take it, and lose it or fail at the head
        elif is_cover(stream) and file.format.name == "mov":
            continue  # it takes it, and loses it
        elif is_cover(stream) and file.format.name == "matroska":
            made = copies[stream.index] = _attached(file, stream, video)
        else:
            try:
                if sound.is_of_discs(stream):
                    made = copies[stream.index] = sound.add(file, stream)
                else:
                    made = copies[stream.index] = file.add_stream_from_template(stream, opaque=True)
            except ValueError:
                continue
        made.disposition = stream.disposition
        for key, value in stream.metadata.items():
            if made is not main or not key.startswith(_OF_THE_OLD_PICTURES):
                made.metadata[key] = value
    return main, copies


def _attached(file: Any, cover: Any, video: Video) -> Any:
    """A cover as what Matroska has for it, an attachment."""
    codec = cover.codec_context.codec.canonical_name
    extension, kind = ("jpg", "jpeg") if codec == "mjpeg" else (codec, codec)
    with opened(video.path) as source, decoding(video.path):
        packets = source.demux(source.streams[cover.index])
        content = next(bytes(packet) for packet in packets if packet.size)
    name = cover.metadata.get("filename", f"cover.{extension}")
    return file.add_attachment(name, cover.metadata.get("mimetype", f"image/{kind}"), content)


def _enlarged(video: Video, encoding: Encoding) -> list[int]:
    """The display matrix with its shift, elements 6 and 7, in pixels of the result."""
    assert video.display is not None
    scale = encoding.width // video.width
    return [
        value * scale if number in (6, 7) else value for number, value in enumerate(video.display)
    ]


def _video_packets(segments: Sequence[Segment], video: Video, stream: Any) -> Iterator[Any]:
    """Those of all segments in the order of decoding, with the times of the source's frames.

    The k-th packet of a segment by its time is that of the k-th frame. Decoding times are those
    of the frames in their order, as many frames earlier as it takes.
    """
    every = [pts for segment in segments for pts in segment.pts]
    durations = [after - pts for pts, after in pairwise([*every, segments[-1].end])]
    orders = [_order(segment) for segment in segments]
    delay = max(place - rank for order in orders for place, rank in enumerate(order))
    lead = every[delay] - every[0]
    first = 0
    for segment, order in zip(segments, orders, strict=True):
        with import_av().open(url(segment.path)) as file:
            if file.streams.video[0].codec_context.extradata != stream.codec_context.extradata:
                raise _damaged(segment)
            packets = (packet for packet in file.demux(video=0) if packet.size)
            for place, (rank, packet) in enumerate(zip(order, packets, strict=True), first):
                shown = first + rank
                packet.time_base = video.time_base
                packet.pts = every[shown]
                packet.dts = every[place - delay] if place >= delay else every[place] - lead
                packet.duration = durations[shown]
                packet.stream = stream
                yield packet
        first += len(order)


def _order(segment: Segment) -> list[int]:
    """Which frame of a segment each of its packets is, in the order of decoding.

    Raises:
        DvmsrError: if there are not as many of the one as of the other.
    """
    with decoding(segment.path), import_av().open(url(segment.path)) as file:
        times = [packet.pts for packet in file.demux(video=0) if packet.size]
    if len(times) != len(segment.pts) or None in times:
        raise _damaged(segment)
    ranks = {time: rank for rank, time in enumerate(sorted(times))}
    return [ranks[time] for time in times]


def _damaged(segment: Segment) -> DvmsrError:
    return DvmsrError(f"{segment.path} is damaged or of another encoder; delete its folder")


def _other_packets(
    source: Any, video: Video, copies: dict[int, Any], strict: bool
) -> Iterator[tuple[float, Any]]:
    """Those of the streams that are copied, each with its time in seconds.

    Args:
        strict: whether no two packets of sound may have the same time.
    """
    in_head = {index for index, made in copies.items() if made.type == "attachment"}
    wanted = [stream for stream in source.streams if stream.index in copies.keys() - in_head]
    if not wanted:
        return
    for stream in source.streams:
        if stream not in wanted:
            stream.discard = import_av().stream.Discard.all
    timelines = {
        stream.index: Timeline(stream.time_base, strict and stream.type in ("audio", "video"))
        for stream in wanted
    }
    packets = source.demux(wanted)
    while True:
        with decoding(video.path):
            packet = next(packets, None)
        if packet is None:
            return
        shift = round(video.start / packet.time_base)
        if is_cover(packet.stream) and packet.size:
            packet.pts = packet.dts = shift  # its own say nothing
        time = packet.dts if packet.dts is not None else packet.pts
        if time is None:
            continue
        more = timelines[packet.stream_index].shift(time - shift, packet.duration or 0) - shift
        packet.pts = None if packet.pts is None else packet.pts + more
        packet.dts = None if packet.dts is None else packet.dts + more
        stream, copy = packet.stream, copies[packet.stream_index]
        for written in sound.rewritten(packet) if sound.is_of_discs(stream) else (packet,):
            written.stream = copy
            yield float((time + more) * packet.time_base), written


def _described(stream: Any) -> str:
    """What to call a stream: `subtitle, dvd_subtitle`."""
    context = stream.codec_context
    codec = getattr(stream, "name", None) if context is None else context.codec.canonical_name
    return f"{stream.type}, {codec}" if codec else str(stream.type)
