"""The item table of an ID model: random vectors, or given ones of a language model.

Shapes: N items, V width of the given vectors, D width of the model, T events.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from seqrec.basics.errors import UserError
from seqrec.nn.dropout import Dropout
from seqrec.nn.geometry import Transform, transform_vectors

InitMode = Literal["init", "frozen", "residual", "adapter"]
Adapter = Literal["linear", "mlp", "moe"]


@dataclass(frozen=True, slots=True)
class TableOptions:
    """How given item vectors enter the model."""

    init_transform: tuple[Transform, ...] = ("standardise",)
    """Transforms of given vectors, in order: none, centre, scale, standardise (centre and scale), match, unit, pca,
    whiten, shrink."""
    fit_transform: Literal["train", "all"] = "train"
    """Items that the transforms are fitted on: train (those that occur in training) or all."""
    init_mode: InitMode = "init"
    """init: trainable; frozen: fixed; residual: fixed plus a trainable offset; adapter: fixed, projected by a trainable
    adapter."""
    adapter: Adapter | None = None
    """Adapter of --init_mode adapter: linear (the default), mlp, or moe (a mixture of eight linear experts)."""
    freeze_items: bool = False
    """The same as --init_mode frozen."""
    unfreeze_at: int | None = None
    """Epoch, from 1, at which frozen vectors become trainable."""

    def __post_init__(self) -> None:
        if self.freeze_items and self.init_mode not in ("init", "frozen"):
            raise UserError(f"--freeze_items is --init_mode frozen, not {self.init_mode}: drop one")
        if self.adapter is not None and self.mode != "adapter":
            raise UserError(f"--adapter {self.adapter} is for --init_mode adapter, not {self.mode}")
        if self.unfreeze_at is not None and (self.mode == "init" or self.unfreeze_at < 1):
            raise UserError(
                f"--unfreeze_at must be at least 1 and is for vectors that are frozen first, got {self.unfreeze_at} "
                f"with --init_mode {self.mode}"
            )

    @property
    def mode(self) -> InitMode:
        """The mode, --freeze_items resolved."""
        return "frozen" if self.freeze_items else self.init_mode

    @property
    def is_frozen(self) -> bool:
        """Return whether the vectors themselves never learn."""
        return self.mode != "init" and self.unfreeze_at is None


@dataclass(frozen=True, slots=True)
class GivenVectors:
    """Given item vectors and their options."""

    vectors: NDArray[np.float32]
    """(N+1, V), row 0 zero."""
    in_training: NDArray[np.bool_]
    """(N+1,) whether an item has a training interaction."""
    options: TableOptions


class ItemTable(nn.Module):
    """N+1 item vectors of width D, used for input and for scoring."""

    def __init__(self, num_items: int, width: int, std: float, given: GivenVectors | None = None) -> None:
        """Start from random vectors, or from given ones.

        Args:
            num_items: N.
            width: D.
            std: Deviation of random vectors' entries.
            given: Given vectors.
        """
        super().__init__()
        self.num_items, self.std = num_items, std
        self.residual: nn.Parameter | None = None
        self.adapter: nn.Module = nn.Identity()
        if given is None:
            weight = torch.randn(num_items + 1, width) * std
            weight[0] = 0
            self.weight = nn.Parameter(weight)
            return
        options, everything = given.options, np.ones_like(given.in_training)
        fitted = everything if options.fit_transform == "all" else given.in_training
        table = transform_vectors(given.vectors, options.init_transform, fitted, width, std)
        self.weight = nn.Parameter(torch.from_numpy(table), requires_grad=not options.is_frozen)
        if options.mode == "adapter":
            self.adapter = make_adapter(options.adapter or "linear", table.shape[1], width)
        elif table.shape[1] != width:
            self.adapter = nn.Linear(table.shape[1], width, bias=False)
            nn.init.xavier_normal_(self.adapter.weight)
        if options.mode == "residual":
            self.residual = nn.Parameter(torch.zeros(num_items + 1, width))

    def vectors(self) -> Tensor:
        """Return all vectors, (N+1, D)."""
        vectors: Tensor = self.adapter(self.weight)
        return vectors if self.residual is None else vectors + self.residual

    def forward(self, items: Tensor) -> Tensor:
        """Return (T, D) vectors of (T,) int64 items."""
        vectors: Tensor = self.adapter(F.embedding(items, self.weight))
        return vectors if self.residual is None else vectors + F.embedding(items, self.residual)


def make_adapter(kind: Adapter, given: int, width: int) -> nn.Module:
    """Return the projection of given vectors from width V to D."""
    if kind == "linear":
        return nn.Linear(given, width)
    if kind == "mlp":
        return nn.Sequential(nn.Linear(given, width), nn.GELU(), nn.Linear(width, width))
    return ExpertMixture(given, width)


class ExpertMixture(nn.Module):
    """A mixture of experts, each with a shift and a projection: out = sum over g of gate_g(x) W_g (x - b_g).

    Gates are a softmax over experts, in training with learnt noise. Source: Hou et al. (2022), UniSRec, section 2.2,
    https://doi.org/10.1145/3534678.3539381.
    """

    def __init__(self, given: int, width: int, num_experts: int = 8, dropout: float = 0.2) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(num_experts, given))
        self.weight = nn.Parameter(torch.randn(num_experts, given, width) * given**-0.5)
        self.gate = nn.Parameter(torch.zeros(given, num_experts))
        self.noise = nn.Parameter(torch.zeros(given, num_experts))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (T, D) from (T, V)."""
        gates = x @ self.gate
        if self.training:
            gates = gates + torch.randn_like(gates) * (F.softplus(x @ self.noise) + 1e-2)
        x = self.dropout(x)
        # W_g (x - b_g) = W_g x - W_g b_g: the shifts are projected once rather than per item.
        shifts = torch.einsum("gv,gvd->gd", self.shift, self.weight)
        projected = torch.einsum("tv,gvd->tgd", x, self.weight) - shifts
        return torch.einsum("tg,tgd->td", gates.softmax(dim=1), projected)
