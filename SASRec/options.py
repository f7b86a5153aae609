"""The flags of SASRec."""

from dataclasses import dataclass, field

from SASRec.model import SASRecConfig
from seqrec.training.id_options import IdModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(IdModelConfig):
    """One SASRec run: data, item vectors, loss, architecture, training and evaluation."""

    model: SASRecConfig = field(default_factory=SASRecConfig)
