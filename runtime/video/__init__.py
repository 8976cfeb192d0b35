"""Videos: decoded, enlarged frame by frame, encoded in segments, and joined with other streams.

`enlarge` is the way in; nothing here imports PyAV before a video is to be read.
"""
