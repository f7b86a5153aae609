"""A large language model beside the sequential recommender: what both make of users and texts.

Shapes: B users, T tokens, R texts, H width of the language model, D width of the recommender, V words.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from LSVCR.align_data import AlignBatch
from LSVCR.align_options import AlignConfig, LLMOptions
from LSVCR.model import SRModel
from seqrec.basics.errors import UserError
from seqrec.basics.progress import progress
from seqrec.data.batches import RowSampler
from seqrec.nn.ragged import Plan, plan_batch
from seqrec.text.blocks import Architecture, Blocks
from seqrec.text.lora import add_lora
from seqrec.text.pooling import pool_texts
from seqrec.text.reading import TextReading
from seqrec.text.texts import Texts, TextTokens

HEAD = "lm_head.weight"


def count_learning(options: LLMOptions, num_blocks: int) -> int:
    """Return how many of the last blocks learn.

    Raises:
        UserError: If there are fewer.
    """
    n = options.llm_last_n_unfreeze
    if n > num_blocks:
        raise UserError(f"--llm_last_n_unfreeze {n}: there are {num_blocks} blocks of {options.model_name_or_path}")
    return num_blocks if n == -1 else n


class LLM(nn.Module):
    """A decoder with its head, of which the last blocks learn."""

    head: Tensor | None
    width: int
    num_blocks: int
    longest: int | None
    """Most tokens of a text; None if there is no limit."""

    def __init__(self, architecture: Architecture, options: LLMOptions) -> None:
        """Read its weights.

        Raises:
            UserError: If it is no decoder, or has fewer blocks than are to learn.
        """
        super().__init__()
        architecture = architecture.shortened(options.llm_num_blocks, "--llm_num_blocks")
        if not architecture.is_causal or architecture.word_width != architecture.width:
            raise UserError(
                f"--model_name_or_path {options.model_name_or_path} is no decoder whose words have the width of its "
                "states: give a Llama, Mistral, Qwen or OPT"
            )
        self.width, self.longest, self.files = architecture.width, architecture.longest, architecture.weight_files()
        self.num_blocks = N = architecture.num_blocks
        first = N - count_learning(options, N)
        self.lower = Blocks(architecture, 0, first).load(self.files) if first else None
        self.upper = Blocks(architecture, first, N).load(self.files) if first < N else None
        self.register_buffer("head", None, persistent=False)
        if not architecture.config.tie_word_embeddings and HEAD in self.files:
            self.head = self.files.read([HEAD], torch.float32)[HEAD]
        self.choose_what_learns(self.learning, options)
        if self.upper is not None and options.gradient_checkpointing:
            self.upper.recompute()

    @property
    def learning(self) -> list[nn.Module]:
        """The blocks that learn."""
        return [] if self.upper is None else [block for _, block in self.upper.layers]

    def choose_what_learns(self, blocks: list[nn.Module], options: LLMOptions) -> None:
        """Freeze all but some blocks, or low-rank updates of these."""
        self.requires_grad_(False)
        if blocks and options.lora_r:
            add_lora(self, nn.ModuleList(blocks), options)
        for block in [] if options.lora_r else blocks:
            block.requires_grad_(True)

    def train(self, mode: bool = True) -> "LLM":
        """Switch to training or evaluation; what is frozen stays in evaluation, without dropout."""
        super().train(False)
        for block in self.learning:
            block.train(mode)
        return self

    def forward(self, texts: Texts) -> tuple[Tensor, Plan]:
        """Return the (T, H) last states of texts, in the order of a plan."""
        plan = plan_batch(texts.offsets.diff(), texts.values.device)
        states, reading = texts.values[plan.token_order], TextReading(plan)
        if self.lower is not None:
            with torch.no_grad():
                states = self.lower(states, reading)
        if self.upper is not None:
            states = self.upper(states, reading)
        return states, plan

    def encode(self, texts: Texts) -> Tensor:
        """Return the mean of each text's states, (R, H)."""
        states, plan = self(texts)
        return pool_texts(states, plan, "mean").float().index_select(0, plan.order.argsort())

    @torch.no_grad()
    def encode_some(self, tokens: TextTokens, ids: NDArray[np.int64], max_tokens: int) -> Tensor:
        """Return the (n, H) vectors of (n,) items on the CPU; equal texts are read once, similar lengths together."""
        firsts: dict[bytes, int] = {}
        same = [firsts.setdefault(tokens.tokens[slice(*tokens.offsets[i : i + 2])].tobytes(), i) for i in ids.tolist()]
        once, places = np.unique(np.array(same, dtype=np.int64), return_inverse=True)
        device, vectors = next(self.parameters()).device, torch.zeros(len(once), self.width)
        batches = RowSampler(tokens.lengths[once], max_tokens=max_tokens, shuffle=False).batches()
        for rows in progress(batches, desc="encoding texts", unit="batch"):
            vectors[torch.from_numpy(rows)] = self.encode(tokens.read(once[rows]).to(device)).cpu()
        return vectors[torch.from_numpy(places)]

    def words(self, states: Tensor) -> Tensor:
        """Return (..., V) logits of the word that follows."""
        table = self.head
        if table is None:
            blocks = self.lower if self.lower is not None else self.upper
            assert blocks is not None
            table = blocks.word_embeddings.weight
        return F.linear(states, table.to(states.dtype))


class Aligned(nn.Module):
    """Both models, and the map from a state of the language model to the recommender's width."""

    def __init__(self, llm: LLM, num_items: int, config: AlignConfig) -> None:
        super().__init__()
        width = llm.width
        if width <= config.model.llm_emb_size:
            raise UserError(
                f"--llm_emb_size {config.model.llm_emb_size} must be less than the width of the language model, {width}"
            )
        self.llm = llm
        self.sr = SRModel(num_items, config.model, ("Rec", "CommRank"), text_width=width, with_ids=False)
        self.contrast_adapter = nn.Linear(width, config.model.hidden_units)

    def read_users(self, batch: AlignBatch) -> tuple[Tensor, Tensor]:
        """Return the language model's (B, D) users, and its mean loss of the answers' tokens."""
        states, plan = self.llm(batch.prompts)
        place = plan.token_order.argsort()
        logits = self.llm.words(states[place[batch.answers - 1]])
        loss = F.cross_entropy(logits.float(), batch.prompts.values[batch.answers])
        return self.contrast_adapter(states[place[batch.ends]].float()), loss

    def read_histories(self, batch: AlignBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the recommender's (B, D) users, of the task's history and of the other one, and (B, D) targets."""
        vectors = self.llm.encode(batch.texts)  # of K titles, then of comments
        titles, comments = vectors.tensor_split([len(batch.items)])
        inputs = batch.inputs._replace(
            texts=F.pad(comments[batch.comments], (0, 0, 1, 0)),
            titles=(F.pad(batch.items, (1, 0)), F.pad(titles, (0, 0, 1, 0))),
        )
        first, second = self.sr.both(inputs, batch.for_comments)
        return first, second, self.sr.text(vectors[batch.targets])

    def take(self, learned: dict[str, Tensor]) -> "Aligned":
        """Take over what was learned, and return itself, in evaluation mode.

        Raises:
            UserError: If it was learned by another model.
        """
        own = self.state_dict()
        if odd := [name for name in learned if name not in own or own[name].shape != learned[name].shape]:
            raise UserError(f"what was learned is of another model; they differ in {', '.join(odd[:6])}")
        self.load_state_dict(own | learned)
        return self.eval()
