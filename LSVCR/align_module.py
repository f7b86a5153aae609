"""Alignment as a Lightning module, its batches and its run. Shapes: B users of this process, G of all, D width."""

import logging
from dataclasses import replace
from typing import Any

import pytorch_lightning as lightning
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from LSVCR.align_data import AlignBatch, AlignCases, Sources
from LSVCR.align_model import Aligned
from LSVCR.align_options import AlignConfig
from LSVCR.aligned import ALIGNED
from LSVCR.cases import VideoCases
from LSVCR.data import open_streams, popular_comments
from LSVCR.losses import contrast, prefer
from LSVCR.options import Config
from LSVCR.other_llm import open_llm
from LSVCR.prompting import PromptWriter, read_templates
from seqrec.basics.files import write_atomically
from seqrec.data.batches import Rounds, RowSampler
from seqrec.data.comments import Comments, load_comments
from seqrec.data.discovery import open_dataset
from seqrec.data.protocol import EvaluationProtocol
from seqrec.nn.optimization import can_fuse, decay_weights, schedule_rate
from seqrec.text.backbones import find_backbone, read_tokenizer
from seqrec.text.lora import SCALE, drop_frozen
from seqrec.text.texts import load_texts
from seqrec.training.checkpoints import load_state
from seqrec.training.folder import RunFolder, is_first_process
from seqrec.training.module import share_of_mean
from seqrec.training.sharding import shard
from seqrec.training.trainer import fit_to_the_end

log = logging.getLogger(__name__)
POPULAR = 10
"""Popular comments of a video that may stand for a user's own."""


class AlignModule(lightning.LightningModule):
    """The four losses and the optimiser."""

    def __init__(self, model: Aligned, config: AlignConfig) -> None:
        super().__init__()
        self.model, self.config = model.train(), config
        reads_both = config.pref_loss_weight or config.bhv_loss_weight
        if not reads_both:
            model.contrast_adapter.requires_grad_(False)
            if not config.rec_loss_weight:
                model.sr.requires_grad_(False)

    def training_step(self, batch: AlignBatch) -> Tensor:
        """Return this process's share of the loss of the whole batch."""
        total = torch.zeros((), device=self.device)
        for name, loss in self.losses(batch).items():
            count = len(batch.answers) * bool(batch.num_counted) if name == "lm" else batch.num_counted
            share, everywhere = share_of_mean(loss, count)
            self.log(f"train/{name}", share, on_step=False, on_epoch=True, sync_dist=True, batch_size=everywhere)
            total = total + getattr(self.config, f"{name}_loss_weight") * share
        self.log("train/loss", total, on_step=True, on_epoch=True, sync_dist=True, batch_size=len(batch.keys))
        return total

    def losses(self, batch: AlignBatch) -> dict[str, Tensor]:
        """Return the mean of each loss over this process's users, 0 where nothing that has a weight needs it."""
        config, temperature = self.config, self.config.temperature
        found = dict.fromkeys(("lm", "rec", "pref", "bhv"), torch.zeros((), device=self.device))
        reads_both = config.pref_loss_weight or config.bhv_loss_weight
        said = None
        if config.lm_loss_weight or reads_both:
            said, found["lm"] = self.model.read_users(batch)
            said = F.normalize(said, dim=1)
        if not (config.rec_loss_weight or reads_both):
            return found
        user, other, target = (F.normalize(x.float(), dim=1) for x in self.model.read_histories(batch))
        keys = self.all_keys(batch)
        first = self.global_rank * (len(keys) // self.trainer.world_size)
        nobody = keys == 0
        same = (keys == batch.keys[:, None]) | nobody
        found["rec"] = contrast(user, self.of_all(target, keys), first, temperature, same)
        if said is not None:
            there = contrast(user, self.of_all(said, keys), first, temperature, nobody)
            back = contrast(said, self.of_all(user, keys), first, temperature, nobody)
            found["pref"] = (there + back) / 2
            found["bhv"] = prefer(said, user, other, temperature)
        return found

    def all_keys(self, batch: AlignBatch) -> Tensor:
        """Return the (G,) keys of all processes' targets, each filled up to one length; 0 where there is no user."""
        keys = batch.keys if batch.num_counted else torch.zeros_like(batch.keys)
        if self.trainer.world_size == 1:
            return keys
        sizes = self.all_gather(torch.tensor(len(keys), device=self.device))
        assert isinstance(sizes, Tensor)
        every = self.all_gather(F.pad(keys, (0, int(sizes.max()) - len(keys))))
        assert isinstance(every, Tensor)
        return every.flatten()

    def of_all(self, vectors: Tensor, keys: Tensor) -> Tensor:
        """Return the (G, D) vectors of all processes, with their gradient."""
        if self.trainer.world_size == 1:
            return vectors
        height = len(keys) // self.trainer.world_size
        rows = self.all_gather(F.pad(vectors, (0, 0, 0, height - len(vectors))), sync_grads=True)
        assert isinstance(rows, Tensor)
        return rows.flatten(0, 1)

    def configure_optimizers(self) -> Any:
        """Return AdamW over what learns, with its schedule."""
        config = self.config
        optimizer = torch.optim.AdamW(decay_weights(self, config.weight_decay), config.lr, fused=can_fuse(self))
        return schedule_rate(optimizer, self, config.warmup_steps, config.schedule)

    def configure_model(self) -> None:
        """Shard the weights over the processes if the strategy does so."""
        shard(self, ("training_step",))

    def learned(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return of a state what was learned, and the scale of low-rank updates."""
        names = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        found = {name: state[name] for name in state if name in names or name.endswith(SCALE)}
        return {name.removeprefix("model."): tensor for name, tensor in found.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out frozen weights, which the language model's own files hold."""
        if "state_dict" in checkpoint:
            checkpoint["state_dict"] = drop_frozen(self, checkpoint["state_dict"])

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load a state; frozen weights, which a checkpoint lacks, stay as they are."""
        return super().load_state_dict(self.state_dict() | dict(state_dict), strict, assign)


class AlignData(lightning.LightningDataModule):
    """The training cases, in rounds of as many batches as lie between checkpoints."""

    def __init__(self, cases: AlignCases, config: AlignConfig) -> None:
        super().__init__()
        self.cases, training = cases, config.training
        rows = RowSampler(cases.lengths, batch_size=config.batch_size, shuffle=True, seed=training.seed)
        self.rounds = Rounds(rows, config.save_steps, training.num_epochs)
        self.workers = training.dataloader_num_workers

    def train_dataloader(self) -> DataLoader[AlignBatch]:
        """Return the batches of a round."""
        assert self.trainer is not None
        self.rounds.spread(self.trainer.global_rank, self.trainer.world_size)
        sampler: Any = self.rounds
        return DataLoader(
            self.cases,
            batch_size=None,
            sampler=sampler,
            generator=torch.Generator(),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )


def open_alignment(config: AlignConfig, comments: Comments) -> tuple[Aligned, AlignCases]:
    """Return both models and the training cases of a dataset with comments."""
    folder = find_backbone(config.llm.model_name_or_path)
    llm, tokenizer = open_llm(folder, config.llm), read_tokenizer(folder, config.llm.trust_remote_code)
    longest = config.max_source_length + config.max_target_length + 1
    if llm.longest is not None:
        longest = min(longest, llm.longest)
    source_length = longest - config.max_target_length - 1
    writer = PromptWriter(read_templates(config.prompts), tokenizer, source_length, config.max_target_length)
    dataset, own = comments.dataset, comments.own
    sources = Sources(
        *(
            load_texts(data, tokenizer, config.tokenized_len, specials=specials)
            for specials in (True, False)
            for data in (dataset, own)
        )
    )
    streams, split = open_streams(comments, Config(model=config.reading), None)
    train = EvaluationProtocol().hold_out(dataset).train
    popular = popular_comments(comments, split.train, POPULAR)
    videos = VideoCases(streams, train, config.training.seed)
    cases = AlignCases(streams, videos, split.train, popular, sources, writer, config)
    return Aligned(llm, dataset.num_items, config), cases


def align(config: AlignConfig) -> None:
    """Align, and write what was learned into the run folder."""
    dataset = open_dataset(config.dataset, config.data_path)
    comments = load_comments(dataset)
    name = f"align-{config.llm.model_name_or_path.strip('/').rpartition('/')[2]}"
    run = RunFolder("LSVCR", dataset, name, config.training, EvaluationProtocol(), result=ALIGNED)
    if not run.open(config):
        return
    lightning.seed_everything(config.training.seed, verbose=False)
    model, cases = open_alignment(config, comments)
    module, data = AlignModule(model, config), AlignData(cases, config)
    batches, parts = f"{data.rounds.total:,}", data.rounds.count
    log.info("aligning on %s cases, batches: %s, checkpoints: %d", f"{len(cases):,}", batches, parts)
    fit_to_the_end(module, data, replace(config.training, num_epochs=data.rounds.count), run.folder)
    if is_first_process():
        learned = module.learned(load_state(run.folder / "checkpoints" / "last.ckpt"))
        with write_atomically(run.folder / ALIGNED) as file:
            file.write(safetensors.torch.save({name: tensor.contiguous() for name, tensor in learned.items()}))
        log.info("what was learned is in %s", run.folder / ALIGNED)
