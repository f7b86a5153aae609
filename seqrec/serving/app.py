"""The HTTP service: `POST /recommend`, items, health, metrics, and a page on them."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi import Path as InPath
from fastapi import Query as InQuery
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from numpy.typing import NDArray
from prometheus_client import generate_latest
from pydantic import BaseModel, ValidationError

from seqrec.basics.errors import UserError
from seqrec.basics.version import __version__
from seqrec.serving.answers import Answer, Answering, Query
from seqrec.serving.batching import Desk, OverloadedError
from seqrec.serving.gate import RECOMMEND, Gate, shed
from seqrec.serving.messages import (
    Added,
    Asked,
    Found,
    Item,
    Model,
    Models,
    Near,
    NewItem,
    Recommendations,
    Recommended,
    Similar,
)
from seqrec.serving.service import Service


def make_app(service: Service) -> FastAPI:
    """Return the application."""
    options = service.options

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        looking = asyncio.create_task(service.look_for_exports())
        yield
        looking.cancel()

    app = FastAPI(title="seqrec", version=__version__, lifespan=lifespan)
    app.add_middleware(
        Gate,
        meters=service.meters,
        most_bytes=options.max_bytes,
        key=options.api_key,
        is_full=lambda: all(desk.is_full for desk in service.desks.values()),
    )

    @app.exception_handler(OverloadedError)
    async def refuse_more(_: Request, __: OverloadedError) -> JSONResponse:
        return shed()

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        # What was sent is not repeated: it may be secret, long, or nothing that JSON can hold.
        said = [{key: fault[key] for key in ("type", "loc", "msg")} for fault in error.errors()[:20]]
        return JSONResponse({"detail": said}, 422)

    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page)

    for routes in (recommending(service), items(service), state(service)):
        app.include_router(routes)
    return app


def recommending(service: Service) -> APIRouter:
    """Return the route that recommends."""
    routes = APIRouter()

    # Read and written without FastAPI's help, which takes as long as the model.
    @routes.post(RECOMMEND, response_model=Recommendations, openapi_extra=describe_body(Asked))
    async def recommend(request: Request) -> Response:
        began = time.perf_counter()
        try:
            asked = Asked.model_validate_json(await request.body())
        except ValidationError as error:
            raise RequestValidationError(error.errors(include_url=False, include_input=False)) from error
        desk = service.desk(asked.model)
        model, query, unknown = _read(desk, asked)
        answer = await desk.ask(model, query)
        found = _items(model, answer)
        if asked.explain and len(query.history):
            await asyncio.to_thread(_explain, model, found, answer.items, query.history)
        taken = (time.perf_counter() - began) * 1000
        said = Recommendations(
            model=model.name, items=found, by=answer.by, unknown=unknown, milliseconds=round(taken, 3)
        )
        return Response(said.model_dump_json(), media_type="application/json")

    return routes


def items(service: Service) -> APIRouter:
    """Return the routes that find items, and add one."""
    routes = APIRouter()

    @routes.get("/items")
    async def find(
        words: Annotated[str, InQuery(max_length=200)] = "",
        limit: Annotated[int, InQuery(ge=1, le=100)] = 10,
        model: str | None = None,
    ) -> Found:
        catalogue = service.desk(model).model.catalogue
        rows = await asyncio.to_thread(catalogue.search, words, limit)
        return Found(items=[Item(**catalogue.describe(row)) for row in rows.tolist()])

    @routes.post("/items", status_code=201)
    async def add(new: NewItem) -> Added:
        if any(0xD800 <= ord(letter) < 0xE000 for part in (str(new.id), *new.text.values()) for letter in part):
            raise HTTPException(422, "an id or a text holds half a character")
        model, placed = await service.add(new.model, str(new.id), new.text)
        describe = model.catalogue.describe
        pairs = zip(placed.near.tolist(), placed.cosines.tolist(), strict=True)
        near = [Near.model_validate({**describe(row), "cosine": round(cosine, 4)}) for row, cosine in pairs]
        return Added(item=Item(**describe(int(model.catalogue.find([new.id])[0][0]))), near=near)

    @routes.get("/items/{item:path}/similar")
    async def similar(
        item: Annotated[str, InPath(max_length=512)],
        k: Annotated[int, InQuery(ge=1, le=1000)] = 10,
        model: str | None = None,
    ) -> Similar:
        served = service.desk(model).model
        rows, _ = served.catalogue.find([item])
        if not len(rows):
            raise HTTPException(404, f"no item {item!r}")
        try:
            answer = await asyncio.to_thread(served.similar, int(rows[0]), k)
        except UserError as error:
            raise HTTPException(409, str(error)) from error
        return Similar(item=Item(**served.catalogue.describe(int(rows[0]))), items=_items(served, answer))

    return routes


def state(service: Service) -> APIRouter:
    """Return the routes that say what is served, and how it fares."""
    routes = APIRouter()

    @routes.get("/models")
    async def models() -> Models:
        served = [desk.model for desk in service.desks.values()]
        return Models(
            models=[
                Model(name=m.name, num_items=len(m.catalogue), attributes=list(m.catalogue.attributes)) for m in served
            ]
        )

    @routes.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    @routes.get("/ready")
    async def ready(response: Response) -> dict[str, Any]:
        full = [name for name, desk in service.desks.items() if desk.is_full]
        response.status_code = 503 if full else 200
        return {"status": "busy" if full else "ready", "models": list(service.desks)}

    @routes.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(service.meters.registry), media_type="text/plain; version=0.0.4")

    return routes


def describe_body(model: type[BaseModel]) -> dict[str, Any]:
    """Return what the description of a request says of a body that it reads itself."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _read(desk: Desk, asked: Asked) -> tuple[Answering, Query, list[str]]:
    """Return the model, a query for it, and the ids that it does not have."""
    model = desk.model
    history, unknown = model.catalogue.find(asked.history)
    left_out, _ = model.catalogue.find(asked.block)
    if not asked.include_seen:
        left_out = np.concatenate([left_out, history])
    among = None if asked.allow is None else model.catalogue.find(asked.allow)[0]
    return model, Query(history, asked.k, left_out, among), unknown


def _items(model: Answering, answer: Answer) -> list[Recommended]:
    ids, titles = model.catalogue.raw_ids, model.catalogue.titles
    found = zip(answer.items.tolist(), answer.scores.tolist(), strict=True)
    return [Recommended(id=ids[row - 1], title=titles[row - 1], score=score) for row, score in found]


def _explain(model: Answering, found: list[Recommended], rows: NDArray[np.int64], history: NDArray[np.int64]) -> None:
    """Say of each recommended item which one of the history is nearest to it, by words and by users."""
    catalogue = model.catalogue
    for item, row in zip(found, rows.tolist(), strict=True):
        item.near_in_text = _nearest(model, history, catalogue.likeness(row, history))
        item.near_in_histories = _nearest(model, history, catalogue.togetherness(row, history))


def _nearest(model: Answering, history: NDArray[np.int64], cosines: NDArray[np.float32]) -> Near | None:
    best = int(cosines.argmax())
    if cosines[best] <= 0:
        return None
    return Near(**model.catalogue.describe(int(history[best])), cosine=round(float(cosines[best]), 4))
