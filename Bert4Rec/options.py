"""The flags of BERT4Rec."""

from dataclasses import dataclass, field

from Bert4Rec.model import Bert4RecConfig
from seqrec.basics.errors import UserError
from seqrec.training.id_options import IdModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(IdModelConfig):
    """One BERT4Rec run: data, item vectors, what is hidden, loss, architecture, training and evaluation."""

    mask_prob: float = 0.2
    """Share of a training sequence's items that are masked and predicted."""
    last_only_prob: float = 0.1
    """Share of training sequences of which only the last item is predicted, as in use."""
    model: Bert4RecConfig = field(default_factory=Bert4RecConfig)

    def __post_init__(self) -> None:
        IdModelConfig.__post_init__(self)
        if self.objective.temp is not None and self.model.untied_output:
            raise UserError("--untied_output scores with a bias, which a cosine (--temp) has no place for: drop one")
        if not 0 < self.mask_prob < 1 or not 0 <= self.last_only_prob <= 1:
            raise UserError(
                f"--mask_prob must lie in (0, 1) and --last_only_prob in [0, 1], got {self.mask_prob} and "
                f"{self.last_only_prob}"
            )
