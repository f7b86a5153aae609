"""The README of an exported model: how to use it without this project."""

from typing import Any

from seqrec.serving import folder as files

_TEXT = """# {name}

Recommends the next item after a history of items: {num_items:,} items, user and item vectors of width {width}.

| file | what it holds |
|---|---|
| `user_encoder.FORM.onnx` | what makes a user's vector of the vectors of a history's items |
| `item_vectors.npy` | ({num_items:,} + 1, {width}) float32, row i for item i; row 0 is nothing |
{event_row}| `index.FORM.faiss` | the item vectors in an HNSW graph; its row i is item i + 1 |
| `items.parquet` | `item` (1, 2, ...), `raw_id`, texts, and how often an item occurs in training |
| `together.npy` | of each item, those that most of the same users had: rows of `item` and `cosine` |
| `manifest.json` | sha256 of each file, and what was measured |

FORM is one of {forms}. The encoder reads `history`, (users, events, {event_width}) float32, the oldest event first
and zeros after the last, and `lengths`, (users,) int64 from 1 to {most_events}. It returns `user`, (users, {width}).
A score is the product of a user's and an item's vector{repeats}. With onnxruntime and numpy alone:

```python
import numpy as np, onnxruntime
encoder = onnxruntime.InferenceSession("user_encoder.{form}.onnx")
items, events = np.load("item_vectors.npy"), np.load("{events}")
history = [1, 2, 3]                                            # rows of items.parquet, the oldest first
read = events[history[-{most_events}:]][None]
user = encoder.run(None, {{"history": read, "lengths": np.array([read.shape[1]])}})[0]
scores = (user @ items.T)[0]
scores[[0, *history]] = -np.inf                                # nothing, and what there was
print(np.argsort(-scores)[:10])
```
"""


def describe(fields: dict[str, Any]) -> str:
    """Return the README for the fields of a manifest."""
    apart = fields["events_apart"]
    shape = f"({fields['num_items']:,} + 1, {fields['event_width']})"
    event_row = f"| `{files.EVENT_VECTORS}` | {shape} float32, items as events of a history |\n"
    return _TEXT.format(
        **{key: fields[key] for key in ("name", "num_items", "width", "event_width", "most_events")},
        event_row=event_row if apart else "",
        forms=", ".join(fields["forms"]),
        form=fields["forms"][0],
        events=files.EVENT_VECTORS if apart else files.ITEM_VECTORS,
        repeats=f", and {score:+.4g} for an item that the history has" if (score := fields["repeat_score"]) else "",
    )
