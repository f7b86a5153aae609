"""Decoders that are not read without padding: any of `transformers`, or one that brings its own code.

Shapes: R texts of at most L tokens, T tokens of all, H width, V words.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from LSVCR.align_model import LLM, count_learning
from LSVCR.align_options import LLMOptions
from seqrec.basics.errors import UserError
from seqrec.basics.opening import read_json_object
from seqrec.nn.ragged import Plan, plan_batch
from seqrec.text.blocks import FAMILIES, PREFIXES, Architecture
from seqrec.text.texts import Texts
from seqrec.text.weight_files import WeightFiles


def open_llm(folder: Path, options: LLMOptions) -> LLM:
    """Return the decoder of a folder: without padding where that is known, otherwise padded.

    Raises:
        UserError: If it brings code of its own, which the flags do not allow to run, or is no decoder.
    """
    told = read_json_object(folder / "config.json", "download the model again")
    if told.get("model_type") in FAMILIES:
        return LLM(Architecture.read(folder), options)
    if "auto_map" in told and not options.trust_remote_code:
        raise UserError(
            f"{folder} brings code of its own, which is run with --trust_remote_code alone: read it first, or give "
            "another model"
        )
    return OtherLLM(folder, options)


class OtherLLM(LLM):
    """A decoder as `transformers` runs it."""

    def __init__(self, folder: Path, options: LLMOptions) -> None:
        """Read its weights.

        Raises:
            UserError: If it is no decoder, or has fewer blocks than are to be used or to learn.
        """
        nn.Module.__init__(self)
        from transformers import AutoConfig, AutoModelForCausalLM

        given = {"trust_remote_code": options.trust_remote_code}
        name = options.model_name_or_path
        try:
            config = AutoConfig.from_pretrained(folder, **given)
            if options.llm_num_blocks is not None:
                if not options.llm_num_blocks <= config.num_hidden_layers:
                    raise UserError(
                        f"--llm_num_blocks must be 1 to {config.num_hidden_layers}, the model's blocks, got "
                        f"{options.llm_num_blocks}"
                    )
                config.num_hidden_layers = options.llm_num_blocks
            model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32, **given)
        except UserError:
            raise
        except (ValueError, OSError, KeyError, AttributeError) as error:
            said = " ".join(str(error).split())[:160]
            raise UserError(f"--model_name_or_path {name} can't be read as a decoder ({said})") from error
        lists = [list(part) for part in model.modules() if isinstance(part, nn.ModuleList)]
        blocks = max(lists, key=len, default=[])
        if len(blocks) != config.num_hidden_layers:
            raise UserError(f"--model_name_or_path {name} has no {config.num_hidden_layers} blocks in one list")
        self.model, self.files = model.eval(), WeightFiles(folder, PREFIXES)
        self.width, self.num_blocks = int(config.hidden_size), len(blocks)
        self.longest = getattr(config, "max_position_embeddings", None)
        self.first = self.num_blocks - count_learning(options, self.num_blocks)
        self._blocks = blocks  # a list, so that they are no modules of this one a second time
        self.choose_what_learns(blocks[self.first :], options)
        if options.gradient_checkpointing and self.learning:
            model.gradient_checkpointing_enable({"use_reentrant": False})

    @property
    def learning(self) -> list[nn.Module]:
        """The blocks that learn."""
        return self._blocks[self.first :]

    def forward(self, texts: Texts) -> tuple[Tensor, Plan]:
        """Return the (T, H) last states of texts, in the order of a plan."""
        lengths, device = texts.offsets.diff(), texts.values.device
        plan = plan_batch(lengths, device)
        mask = torch.arange(int(lengths.max()), device=device) < lengths.to(device)[:, None]
        tokens = torch.zeros_like(mask, dtype=torch.int64)
        tokens[mask] = texts.values
        decoder: Any = self.model.get_decoder()
        states = decoder(input_ids=tokens, attention_mask=mask.long(), use_cache=False).last_hidden_state
        return states[mask][plan.token_order], plan

    def words(self, states: Tensor) -> Tensor:
        """Return (..., V) logits of the word that follows."""
        head: Any = self.model.get_output_embeddings()
        logits: Tensor = head(states)
        return logits
