"""`mamba_ssm.utils.generation`: the states between tokens; generating text is refused."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dvmsr.compat.refusals import refused_function

TEXT = "language models and the generation of text are not supported"


@dataclass
class InferenceParams:
    """What `Mamba.forward` keeps its states in; the caller moves `seqlen_offset` on."""

    max_seqlen: int
    max_batch_size: int
    seqlen_offset: int = 0
    batch_size_offset: int = 0
    key_value_memory_dict: dict[int, Any] = field(default_factory=dict)
    lengths_per_sample: Tensor | None = None

    def reset(self, max_seqlen: int, max_batch_size: int) -> None:
        self.max_seqlen = max_seqlen
        self.max_batch_size = max_batch_size
        self.seqlen_offset = 0
        if self.lengths_per_sample is not None:
            self.lengths_per_sample.zero_()


class GenerationMixin:
    """A base class of vision networks, too, which never generate."""

    generate = refused_function("mamba_ssm.utils.generation.GenerationMixin.generate", TEXT)
    allocate_inference_cache = refused_function(
        "mamba_ssm.utils.generation.GenerationMixin.allocate_inference_cache", TEXT
    )
