"""A card of an image set: what it holds, where it comes from, under which licence, and what to beware of."""

from __future__ import annotations

from taylorir.datasets.manifest import SetEntry

_CARD = """\
---
pretty_name: {name}
task_categories: [image-to-image]
---

# {name}

{images} images: {content}. {use}

* Size: {size}.
* Limits: {limits}.
* Source: {source}
* Licence: {licence}.
* To cite: {citation}.
* Known by the hash of their pixels: {hashes} of {images} images; `taylorir data check` compares a folder.

```sh
taylorir data fetch {name} --data-root DIR --accept-licence
```
"""
_USE = {"benchmarks": "To measure on, never to train on.", "train": "To train on."}


def dataset_card(entry: SetEntry) -> str:
    """The card of a set, in the Markdown that the Hugging Face Hub reads."""
    return _CARD.format(
        name=entry.name,
        images=entry.images,
        content=entry.content,
        use=_USE[entry.folder],
        size=_size(entry),
        limits=entry.limits,
        source=entry.source,
        licence=entry.licence.rstrip("."),
        citation=entry.citation,
        hashes=len(entry.hashes),
    )


def _size(entry: SetEntry) -> str:
    """The range of widths and heights in pixels, as far as it is known."""
    if not entry.hashes:
        return "not recorded"
    sides = (sorted({getattr(image, side) for image in entry.hashes}) for side in ("width", "height"))
    width, height = (f"{some[0]} to {some[-1]}" if len(some) > 1 else some[0] for some in sides)
    return f"{width} pixels wide, {height} high"
