"""What is asked of the service, and what it answers, as JSON."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Asked(BaseModel):
    """A history, and what to recommend to it."""

    model_config = ConfigDict(extra="forbid")
    history: list[str | int] = Field(max_length=10_000, description="ids of items, the oldest first; may be empty")
    k: int = Field(10, ge=1, le=1000, description="number of items")
    model: str | None = Field(None, max_length=200, description="name of the model; by default the first")
    include_seen: bool = Field(False, description="recommend items of the history, too")
    block: list[str | int] = Field([], max_length=10_000, description="ids that are not recommended")
    allow: list[str | int] | None = Field(None, max_length=100_000, description="ids that alone are recommended")
    explain: bool = Field(False, description="say which item of the history is nearest to each that is recommended")


class Near(BaseModel):
    """An item of the history that is near to a recommended one."""

    id: str
    title: str
    cosine: float


class Item(BaseModel):
    """An item."""

    id: str
    title: str


class Recommended(Item):
    """A recommended item."""

    score: float
    near_in_text: Near | None = None
    near_in_histories: Near | None = None


class Recommendations(BaseModel):
    """The best items, best first."""

    model: str
    items: list[Recommended]
    by: str = Field(description="what ranked them: model, or popularity where no item of the history is known")
    unknown: list[str] = Field(description="ids that the model does not have")
    milliseconds: float


class Similar(BaseModel):
    """Items near to one."""

    item: Item
    items: list[Recommended]


class NewItem(BaseModel):
    """An item to be added, which is placed among the others by its texts."""

    model_config = ConfigDict(extra="forbid")
    id: Annotated[str, Field(min_length=1, max_length=512)] | int
    text: dict[str, Annotated[str, Field(max_length=10_000)]] = Field(min_length=1, max_length=20)
    model: str | None = Field(None, max_length=200, description="name of the model; by default the first")


class Added(BaseModel):
    """An item that was added, and the items whose vectors made its own."""

    item: Item
    near: list[Near]


class Found(BaseModel):
    """Items whose titles hold some words."""

    items: list[Item]


class Model(BaseModel):
    """A served model."""

    name: str
    num_items: int
    attributes: list[str]


class Models(BaseModel):
    """All served models, the default one first."""

    models: list[Model]
