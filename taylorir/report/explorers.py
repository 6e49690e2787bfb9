"""Figures with dials: a table of numbers and a drawing that follow a reader's range inputs, without a server.

The page holds the numbers of the library at the first setting, so it reads without a script, in print and in
JupyterLab. ``book/_static/explorers.js`` then shows the dials and computes the same closed formulas.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from taylorir.report.tables import style_of

FORM_ORDER = (
    "softmax_naive",
    "softmax_fused",
    "softmax_flash",
    "taylor_direct",
    "taylor_published",
    "taylor_efficient",
)
_NUMBER = ' class="number"'


class Dial(NamedTuple):
    """A range input: its name in the script, what it is called, its range, and where it stands first."""

    name: str
    label: str
    low: float
    high: float
    step: float
    value: float


@dataclass(frozen=True)
class Explorer:
    """An HTML figure with dials, as the functions below make it. Shown by a notebook as it stands.

    Attributes:
        kind: the function of the script that moves it.
        caption: what it shows, one sentence.
        dials: its inputs.
        drawing: what the drawing shows, for those who do not see it.
        rows: a column ``key``, and one for each of ``headings``.
        headings: by column; the first one heads the names of the rows.
        formats: format specification by column, such as ",.2f".
        sentence: what is read out when a dial moves, with ``{name}`` where a value stands.
        note: what stands below, likewise.
        values: by name a value and its format specification.
        data: what else the script needs, as JSON.
    """

    kind: str
    caption: str
    dials: tuple[Dial, ...]
    drawing: str
    rows: pd.DataFrame
    headings: Mapping[str, str]
    formats: Mapping[str, str]
    sentence: str
    note: str
    values: Mapping[str, tuple[float, str]]
    data: Mapping[str, object]

    def _repr_html_(self) -> str:
        name = f"tir-{self.kind}"
        shown = {key: _value(key, *value) for key, value in self.values.items()}
        sentence, note = (html.escape(text).format(**shown) for text in (self.sentence, self.note))
        dials = "".join(_input(dial) for dial in self.dials)
        data = json.dumps(self.data, allow_nan=False).replace("<", "\\u003c")
        return (
            f'<figure class="tir-explorer" data-explorer="{self.kind}" aria-labelledby="{name}">'
            f'<figcaption id="{name}">{html.escape(self.caption)}</figcaption>'
            f'<div class="tir-dials" role="group" aria-label="Dials" hidden>{dials}</div>'
            f'<div class="tir-drawing" role="img" aria-label="{html.escape(self.drawing)}"></div>'
            f'<p aria-live="polite">{sentence}</p>{self._table()}<p>{note}</p>'
            f'<script type="application/json">{data}</script></figure>'
        )

    def __repr__(self) -> str:
        numbers = {key: format(*value) for key, value in self.values.items()}
        text = f"{self.sentence} {self.note}".format(**numbers)
        return f"{self.caption}\n{self.rows.to_string(index=False)}\n{text}"

    def _table(self) -> str:
        first, *others = self.headings
        head = "".join(
            f'<th scope="col"{"" if name == first else _NUMBER}>{html.escape(text)}</th>'
            for name, text in self.headings.items()
        )
        lines = []
        for row in self.rows.to_dict("records"):
            key, title = row["key"], html.escape(row[first])
            values = [_value(f"{key}.{name}", row[name], self.formats[name]) for name in others]
            cells = "".join(f"<td{_NUMBER}>{value}</td>" for value in values)
            lines.append(f'<tr><th scope="row">{_swatch(key)}{title}</th>{cells}</tr>')
        return (
            f'<div class="tir-table"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(lines)}</tbody></table></div>"
        )


_SCENES = {
    "spread": "scores spread evenly",
    "match": "one key fits, the others are at right angles to the query",
    "worst": "the worst case for this many keys",
}
_WEIGHTS_DRAWING = (
    "Left, weight against score for scores spread evenly: softmax rises steeply, the Taylor softmax "
    "less, and below a score of minus one it rises again. Right, how much weight moves against the "
    "temperature: the bound, and below it the three sets of scores of the table."
)
_WEIGHTS_SENTENCE = (
    "With {tokens} scores in −τ..τ and τ = {temperature}, no set of them moves more than {bound} of the"
    " weight. Softmax can weigh one key {ratio_softmax} times as much as another, the Taylor softmax "
    "{ratio_taylor} times."
)
_WEIGHTS_NOTE = (
    "Weight moved is the total variation of the two rows of weights; its bound does not depend on N."
)


def weights_explorer(
    scenes: pd.DataFrame, *, temperature: float, num_tokens: int, bound: float, ratios: tuple[float, float]
) -> Explorer:
    """What temperature and number of tokens do to the weights of softmax and of the Taylor softmax.

    Args:
        scenes: as :func:`taylorir.fidelity.scene_rows` gives them at these settings.
        temperature: tau, where the dial stands first.
        num_tokens: N, likewise.
        bound: the largest total variation that scores in -tau..tau allow.
        ratios: largest ratio of two weights under softmax and under the Taylor softmax.
    """
    return Explorer(
        kind="weights",
        caption="Weights of softmax and of the Taylor softmax, from the same bounded scores",
        dials=(
            Dial("temperature", "temperature τ", 0.1, 8, 0.1, temperature),
            Dial("num_tokens", "tokens N", 2, 2304, 1, num_tokens),
        ),
        drawing=_WEIGHTS_DRAWING,
        rows=scenes.assign(scene=scenes["key"].map(_SCENES)),
        headings={
            "scene": "scores",
            "softmax": "heaviest key, softmax",
            "taylor": "heaviest key, Taylor",
            "apart": "weight moved",
        },
        formats=dict.fromkeys(("softmax", "taylor", "apart"), ",.2%"),
        sentence=_WEIGHTS_SENTENCE,
        note=_WEIGHTS_NOTE,
        values={
            "tokens": (num_tokens, ",.0f"),
            "temperature": (temperature, ",.1f"),
            "bound": (bound, ",.2%"),
            "ratio_softmax": (ratios[0], ",.1f"),
            "ratio_taylor": (ratios[1], ",.1f"),
        },
        data={"styles": _styles(("softmax_naive", "taylor_efficient"))},
    )


_COSTS_DRAWING = (
    "Operations per token against the side of the window, both logarithmic: softmax and the direct form"
    " rise with the square of the side; both efficient forms are level lines that the others cross."
)
_COSTS_SENTENCE = (
    "A window of {tokens} tokens. By formula the published efficient form takes fewer operations than "
    "the direct one from N₀ = {n0} tokens on, and holds fewer numbers from N₁ = {n1} on. Ours costs "
    "what softmax costs at a window of {parity} pixels per side, the published form what it costs at "
    "{parity_published}."
)
_COSTS_NOTE = (
    "Measured nearest: one window of {near_tokens} tokens at d = {near_dim}, 6 heads, forward, "
    "processor time; and a training step of a whole network with d = {near_network} and window "
    "{near_window} on one LR image of 48 × 48. A dash: no formula, or not measured there."
)


def cost_explorer(
    forms: pd.DataFrame,
    times: pd.DataFrame,
    memory: pd.DataFrame,
    *,
    window_size: int,
    head_dim: int,
    num_heads: int,
    crossovers: tuple[int, int],
    parity: tuple[float, float],
) -> Explorer:
    """What attention costs by formula, and what was measured nearest to it.

    Args:
        forms: one row a method: method, operations (per token, all heads), held (numbers per head), ms, mib.
        times: measured forward passes: method, num_tokens, head_dim, ms.
        memory: measured training steps: method, window_size, head_dim, mib.
        window_size: where the dial stands first; ``head_dim`` and ``num_heads`` likewise.
        crossovers: N0 and N1 at ``head_dim``.
        parity: the softmax window that costs what the efficient form does, ours and as published.
    """
    rows = forms.set_index("method").loc[list(FORM_ORDER)].rename_axis("key").reset_index()
    return Explorer(
        kind="costs",
        caption="What one token of attention costs, by formula, and the measured rows nearest to it",
        dials=(
            Dial("window_size", "side of the window w", 2, 96, 1, window_size),
            Dial("head_dim", "channels per head d", 2, 64, 1, head_dim),
            Dial("num_heads", "heads H", 1, 12, 1, num_heads),
        ),
        drawing=_COSTS_DRAWING,
        rows=rows.assign(form=[style_of(method).label for method in rows["key"]]),
        headings={
            "form": "form",
            "operations": "operations per token",
            "held": "numbers held per head",
            "ms": "measured: ms per window",
            "mib": "measured: MiB per training step",
        },
        formats={"operations": ",.0f", "held": ",.0f", "ms": ",.2f", "mib": ",.0f"},
        sentence=_COSTS_SENTENCE,
        note=_COSTS_NOTE,
        values={
            "tokens": (window_size**2, ",.0f"),
            "n0": (crossovers[0], ",.0f"),
            "n1": (crossovers[1], ",.0f"),
            "parity": (parity[0], ",.1f"),
            "parity_published": (parity[1], ",.1f"),
            "near_tokens": (window_size**2, ",.0f"),
            "near_dim": (head_dim, ",.0f"),
            "near_network": (head_dim, ",.0f"),
            "near_window": (window_size, ",.0f"),
        },
        data={
            "styles": _styles(FORM_ORDER),
            "times": _records(times, ["method", "num_tokens", "head_dim", "ms"]),
            "memory": _records(memory, ["method", "window_size", "head_dim", "mib"]),
        },
    )


def _input(dial: Dial) -> str:
    """The input comes first: a label names the first control in it, and an output counts as one."""
    return (
        f'<label><input type="range" name="{dial.name}" min="{dial.low:g}" max="{dial.high:g}" '
        f'step="{dial.step:g}" value="{dial.value:g}">'
        f"<span>{html.escape(dial.label)}</span> <output>{dial.value:g}</output></label>"
    )


def _value(key: str, value: float, specification: str) -> str:
    number = "" if pd.isna(value) else repr(float(value))
    text = "–" if pd.isna(value) else format(value, specification)
    return f'<data value="{number}" data-at="{key}" data-format="{specification}">{text}</data>'


def _swatch(key: str) -> str:
    """Place for a piece of the line that the drawing has for this row; nothing where it has none."""
    return f'<i class="tir-swatch" data-style="{key}" aria-hidden="true"></i>' if key in FORM_ORDER else ""


def _styles(methods: Sequence[str]) -> dict[str, dict[str, str]]:
    looks = {method: style_of(method) for method in methods}
    return {method: {"color": look.color, "dashes": look.dashes} for method, look in looks.items()}


def _records(rows: pd.DataFrame, columns: list[str]) -> list[dict[str, object]]:
    return json.loads(rows[columns].to_json(orient="records"))
