"""The served models, each with its desk, and what is counted of them."""

import asyncio
import logging
from pathlib import Path

import numpy as np
from fastapi import HTTPException
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from seqrec.basics.errors import UserError
from seqrec.basics.files import hash_file
from seqrec.serving import folder as files
from seqrec.serving.additions import Journal, add_all, journal_of
from seqrec.serving.answers import Answering, Placed, Query
from seqrec.serving.batching import Desk
from seqrec.serving.exported import Exported
from seqrec.serving.options import ServiceOptions

log = logging.getLogger(__name__)
LOOK_EVERY = 2.0
"""Seconds between looks for a newer export."""


def open_model(folder: Path, options: ServiceOptions) -> Answering:
    """Return the model of an export, or of a finished run."""
    if (folder / "metrics.json").is_file():
        from seqrec.serving.run_model import Run  # PyTorch, which exports do without

        return Run(folder)
    return Exported(folder, options.form, options.search, options.threads)


class Meters:
    """What Prometheus reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("path", "status")
        self.requests = Counter("seqrec_requests", "Requests", labels, registry=self.registry)
        buckets = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
        self.seconds = Histogram(
            "seqrec_seconds", "Time of a request", ("path",), buckets=buckets, registry=self.registry
        )
        sizes = (1, 2, 4, 8, 16, 32, 64, 128)
        self.batches = Histogram("seqrec_batch", "Queries answered together", buckets=sizes, registry=self.registry)
        self.waiting = Gauge("seqrec_waiting", "Queries that wait", registry=self.registry)
        self.added = Counter("seqrec_added", "Items that were added", registry=self.registry)
        self.loaded = Counter("seqrec_loaded", "Exports that were loaded while serving", registry=self.registry)


class Service:
    """The served models."""

    def __init__(self, folders: list[Path], options: ServiceOptions) -> None:
        """Open the models.

        Raises:
            UserError: If one cannot be opened, or two have one name.
        """
        self.options, self.meters = options, Meters()
        self.desks: dict[str, Desk] = {}
        self.journals: dict[str, Journal] = {}
        self.adding = asyncio.Lock()
        self.places: dict[str, Path] = {}
        for folder in folders:
            model = self.open(folder)
            if model.name in self.desks:
                raise UserError(f"{folder} and another folder have the name {model.name}: export one with --name")
            if journal_of(folder).is_file():
                self.journals[model.name] = Journal(journal_of(folder))
                add_all(model, self.journals[model.name])
            self.desks[model.name] = Desk(model, options.max_batch, options.max_waiting, self.meters.batches.observe)
            self.places[model.name] = folder
        self.meters.waiting.set_function(lambda: sum(map(len, self.desks.values())))

    def open(self, folder: Path) -> Answering:
        """Return the model in a folder, which has answered once."""
        model = open_model(folder, self.options)
        model.answer([Query(np.array([1]), 1, np.array([], dtype=np.int64))])
        model.catalogue.likeness(1, np.array([1]))  # words are counted now, not when somebody waits
        log.info("%s: %s items, from %s", model.name, f"{len(model.catalogue):,}", folder)
        return model

    def desk(self, name: str | None) -> Desk:
        """Return where a model is asked; by default the first.

        Raises:
            HTTPException: If there is none of that name.
        """
        if name is None:
            return next(iter(self.desks.values()))
        if name not in self.desks:
            raise HTTPException(404, f"no model {name!r}; there are: {', '.join(self.desks)}")
        return self.desks[name]

    async def add(self, name: str | None, raw_id: str, texts: dict[str, str]) -> tuple[Answering, Placed]:
        """Add an item to a model, on disk and in memory, and return the model and where the item stands.

        Raises:
            HTTPException: If there is an item of that id, or none can be added.
        """
        desk = self.desk(name)
        if odd := texts.keys() - set(desk.model.catalogue.attributes):
            known = ", ".join(desk.model.catalogue.attributes) or "none"
            raise HTTPException(422, f"{desk.model.name} has no attribute {min(odd)!r}; there are: {known}")
        async with self.adding:
            model = desk.model
            if len(model.catalogue.find([raw_id])[0]):
                raise HTTPException(409, f"there is an item {raw_id!r}")
            try:
                placed = await asyncio.to_thread(model.place, texts)
                if model.name not in self.journals:
                    self.journals[model.name] = Journal(journal_of(self.places[model.name]))
            except UserError as error:
                raise HTTPException(422, str(error)) from error
            await asyncio.to_thread(self.journals[model.name].append, raw_id, texts)
            await desk.run(model.add, raw_id, texts, placed)
        self.meters.added.inc()
        return model, placed

    async def look_for_exports(self) -> None:
        """Exchange models whose folder holds a newer export, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            for name, desk in self.desks.items():
                try:
                    await self._exchange(name, desk)
                except Exception as error:  # noqa: BLE001 - whatever is wrong with it, or goes while it is read
                    log.warning("%s goes on with the model it has: %s", name, error)

    async def _exchange(self, name: str, desk: Desk) -> None:
        manifest = self.places[name] / files.MANIFEST
        if not manifest.is_file() or hash_file(manifest) == desk.model.digest:
            return
        model = await asyncio.to_thread(self.open, self.places[name])
        if model.name != name:
            raise UserError(f"{self.places[name]} now holds {model.name}: start the service again to serve it")
        async with self.adding:  # nothing is added between the two
            if name in self.journals:
                await asyncio.to_thread(add_all, model, self.journals[name])
            desk.model = model
        self.meters.loaded.inc()
