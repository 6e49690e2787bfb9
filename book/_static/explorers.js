/* The figures with dials (taylorir/report/explorers.py): plain script, no library, nothing is loaded.
   The formulas are those of taylorir.fidelity and taylorir.cost; tests/book/test_explorers.py compares. */
"use strict";

(() => {
  // --- formulas ---------------------------------------------------------------------------------

  const taylor = (x) => 1 + x + (x * x) / 2;
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const normalised = (values) => {
    const total = sum(values);
    return values.map((value) => value / total);
  };

  const logSpread = (m) => 2 * m + Math.log(taylor(-m)) - Math.log(taylor(m));
  const bound = (m) => Math.tanh(logSpread(m) / 4);

  const scores = {
    spread: (m, n) => Array.from({ length: n }, (_, j) => m - (2 * m * j) / (n - 1)),
    match: (m, n) => Array.from({ length: n }, (_, j) => (j ? 0 : m)),
    worst: (m, n) => {
      const low = Math.round(n / (1 + Math.exp(logSpread(m) / 2 - 2 * m)));
      return Array.from({ length: n }, (_, j) => (j < Math.min(Math.max(low, 1), n - 1) ? -m : m));
    },
  };

  const scene = (name, m, n) => {
    const x = scores[name](m, n);
    const soft = normalised(x.map((value) => Math.exp(value - m)));
    const poly = normalised(x.map(taylor));
    const apart = sum(soft.map((value, j) => Math.abs(value - poly[j]))) / 2;
    return { x, soft, poly, apart };
  };

  const operations = (method, n, d) => {
    if (method === "taylor_published") return 4 * n * (d * d + d) * (d + 1);
    if (method === "taylor_efficient") return 4 * n * (1 + d + (d * (d + 1)) / 2) * (d + 1);
    return 4 * n * n * d;
  };
  const held = (method, n, d) => {
    if (method === "taylor_direct") return d * n + 2 * n * n;
    if (method === "taylor_published") return d * d * (d + 1) + 2 * d * n + (d + 1) * n + d * d * n;
    return NaN;
  };
  const crossoverFlops = (d) => d * d + d + 1;
  const crossoverMemory = (d) =>
    Math.ceil((d * d + 2 * d + 1 + Math.sqrt(d ** 4 + 12 * d ** 3 + 14 * d ** 2 + 4 * d + 1)) / 4);
  const parity = (method, d) => Math.sqrt(operations(method, 1, d) / (4 * d));

  // --- drawing ----------------------------------------------------------------------------------

  const DASHES = { "-": "", "--": "7 4", "-.": "8 3 2 3", ":": "2 3" };
  const node = (name, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };

  /* One panel: axes with `low`, `high`, `ticks`, `log`, `label`; lines of [x, y] points; dots; upright marks. */
  const panel = (width, height, { x, y, lines = [], dots = [], marks = [] }) => {
    const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
    const place = { left: 52, right: width - 12, top: 12, bottom: height - 42 };
    const to = (axis, from, until) => (value) => {
      const f = axis.log ? Math.log : (v) => v;
      return from + ((until - from) * (f(value) - f(axis.low))) / (f(axis.high) - f(axis.low));
    };
    const [toX, toY] = [to(x, place.left, place.right), to(y, place.bottom, place.top)];
    const within = (axis, value) => Math.min(Math.max(value, axis.low), axis.high);
    for (const tick of x.ticks) {
      svg.append(node("path", { class: "grid", d: `M${toX(tick)} ${place.top}V${place.bottom}` }));
      svg.append(node("text", { x: toX(tick), y: place.bottom + 16, "text-anchor": "middle" }, compact(tick)));
    }
    for (const tick of y.ticks) {
      svg.append(node("path", { class: "grid", d: `M${place.left} ${toY(tick)}H${place.right}` }));
      svg.append(node("text", { x: place.left - 6, y: toY(tick) + 4, "text-anchor": "end" }, (y.text || compact)(tick)));
    }
    svg.append(node("text", { x: place.right, y: height - 8, "text-anchor": "end" }, x.label));
    for (const { at, label } of marks) {
      if (at < x.low || at > x.high) continue;
      svg.append(node("path", { class: "mark", d: `M${toX(at)} ${place.top}V${place.bottom}` }));
      const end = toX(at) > place.right - 60;
      svg.append(node("text", { x: toX(at) + (end ? -4 : 4), y: place.top + 11, "text-anchor": end ? "end" : "start" }, label));
    }
    for (const { points, color, dashes } of lines) {
      const d = points.map(([a, b], i) => `${i ? "L" : "M"}${toX(a).toFixed(1)} ${toY(within(y, b)).toFixed(1)}`).join("");
      svg.append(node("path", { class: "line", d, stroke: color, "stroke-dasharray": DASHES[dashes] }));
    }
    for (const { at, color } of dots)
      svg.append(node("circle", { cx: toX(at[0]), cy: toY(within(y, at[1])), r: 4.5, fill: color }));
    return svg;
  };

  const compact = (value) => {
    const units = [[1e9, " G"], [1e6, " M"], [1e3, " k"]];
    const [size, unit] = units.find(([least]) => Math.abs(value) >= least) || [1, ""];
    return `${Number((value / size).toPrecision(3))}${unit}`;
  };
  const steps = (low, high, count) => Array.from({ length: count + 1 }, (_, i) => low + ((high - low) * i) / count);
  const powersOfTen = (low, high) =>
    steps(Math.ceil(Math.log10(low)), Math.floor(Math.log10(high)), Math.floor(Math.log10(high)) - Math.ceil(Math.log10(low)))
      .map((power) => 10 ** power);

  // --- the two figures --------------------------------------------------------------------------

  const weights = ({ temperature: m, num_tokens: n }, { styles }) => {
    const scenes = Object.fromEntries(Object.keys(scores).map((name) => [name, scene(name, m, n)]));
    const values = {
      tokens: n,
      temperature: m,
      bound: bound(m),
      ratio_softmax: Math.exp(2 * m),
      ratio_taylor: taylor(m) / taylor(Math.max(-m, -1)),
    };
    for (const [name, { soft, poly, apart }] of Object.entries(scenes)) {
      values[`${name}.softmax`] = Math.max(...soft);
      values[`${name}.taylor`] = Math.max(...poly);
      values[`${name}.apart`] = apart;
    }
    const { x, soft, poly } = scenes.spread;
    const [ours, theirs] = [styles.taylor_efficient, styles.softmax_naive];
    const top = Math.max(...soft, ...poly) * n;
    const few = n <= 24 ? x.map((_, j) => j) : [];
    const curve = (weight) => x.map((value, j) => [value, weight[j] * n]);
    const draw = (width) => [
      panel(width, 240, {
        x: { low: -m, high: m, ticks: steps(-m, m, 4), label: "score; weight in units of 1/N" },
        y: { low: 0, high: top * 1.05, ticks: steps(0, top, 4), text: (v) => v.toPrecision(2) },
        lines: [{ points: curve(soft), ...theirs }, { points: curve(poly), ...ours }],
        dots: few.flatMap((j) => [
          { at: [x[j], soft[j] * n], color: theirs.color },
          { at: [x[j], poly[j] * n], color: ours.color },
        ]),
      }),
      panel(width, 240, {
        x: { low: 0, high: 8, ticks: [0, 2, 4, 6, 8], label: "temperature; weight moved, bound and sets" },
        y: { low: 0, high: 1, ticks: [0, 0.25, 0.5, 0.75, 1], text: (v) => `${100 * v}%` },
        lines: [{ points: steps(0, 8, 80).map((t) => [t, bound(t)]), color: "currentColor", dashes: "-" }],
        dots: Object.values(scenes).map(({ apart }) => ({ at: [m, apart], color: ours.color })),
        marks: [{ at: m, label: "τ" }],
      }),
    ];
    return { values, draw };
  };

  const nearest = (rows, measure) =>
    rows.reduce((best, row) => (measure(row) < measure(best) - 1e-12 ? row : best), rows[0]);

  const costs = ({ window_size: w, head_dim: d, num_heads: heads }, { styles, times, memory }) => {
    const n = w * w;
    const far = (a, b) => Math.abs(Math.log(a / b));
    const time = nearest(times, (row) => 100 * far(row.head_dim, d) + far(row.num_tokens, n));
    const network = nearest(memory, (row) => 100 * far(row.head_dim, d) + far(row.window_size, w));
    const values = {
      tokens: n,
      n0: crossoverFlops(d),
      n1: crossoverMemory(d),
      parity: parity("taylor_efficient", d),
      parity_published: parity("taylor_published", d),
      near_tokens: time.num_tokens,
      near_dim: time.head_dim,
      near_network: network.head_dim,
      near_window: network.window_size,
    };
    for (const method of Object.keys(styles)) {
      const same = (row, keys, other) => row.method === method && keys.every((key) => row[key] === other[key]);
      values[`${method}.operations`] = (heads * operations(method, n, d)) / n;
      values[`${method}.held`] = held(method, n, d);
      values[`${method}.ms`] = (times.find((row) => same(row, ["num_tokens", "head_dim"], time)) || {}).ms ?? NaN;
      values[`${method}.mib`] = (memory.find((row) => same(row, ["window_size", "head_dim"], network)) || {}).mib ?? NaN;
    }
    const sides = steps(Math.log(2), Math.log(96), 60).map(Math.exp);
    const shown = ["softmax_naive", "taylor_direct", "taylor_published", "taylor_efficient"];
    const of = (method, side) => (heads * operations(method, side * side, d)) / (side * side);
    const all = shown.flatMap((method) => [of(method, 2), of(method, 96)]);
    const [low, high] = [Math.min(...all) / 1.5, Math.max(...all) * 1.5];
    const draw = (width) => [
      panel(width, 280, {
        x: { low: 2, high: 96, log: true, ticks: [2, 4, 8, 16, 32, 48, 96], label: "side of the window; operations per token" },
        y: { low, high, log: true, ticks: powersOfTen(low, high) },
        lines: shown.map((method) => ({ points: sides.map((side) => [side, of(method, side)]), ...styles[method] })),
        dots: shown.map((method) => ({ at: [w, of(method, w)], color: styles[method].color })),
        marks: [{ at: w, label: `w = ${w}` }],
      }),
    ];
    return { values, draw, panels: 1 };
  };

  // --- dials, table, sentence -------------------------------------------------------------------

  const format = (value, specification) => {
    const percent = specification.endsWith("%");
    const digits = Number(/\.(\d+)/.exec(specification)[1]);
    const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
    return (percent ? 100 * value : value).toLocaleString("en-US", options) + (percent ? "%" : "");
  };

  const explore = (figure) => {
    const move = { weights, costs }[figure.dataset.explorer];
    const data = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
    const dials = [...figure.querySelectorAll("input[type=range]")];
    const drawing = figure.querySelector(".tir-drawing");
    const update = () => {
      const setting = Object.fromEntries(dials.map((dial) => [dial.name, Number(dial.value)]));
      for (const dial of dials) dial.parentElement.querySelector("output").textContent = dial.value;
      const { values, draw, panels = 2 } = move(setting, data);
      for (const cell of figure.querySelectorAll("data[data-at]")) {
        const value = values[cell.dataset.at];
        cell.value = Number.isNaN(value) ? "" : String(value);
        cell.textContent = Number.isNaN(value) ? "–" : format(value, cell.dataset.format);
      }
      const across = drawing.clientWidth >= 560 ? panels : 1;
      drawing.replaceChildren(...draw(Math.floor(Math.max(drawing.clientWidth, 260) / across)));
    };
    for (const swatch of figure.querySelectorAll(".tir-swatch")) {
      const { color, dashes } = data.styles[swatch.dataset.style];
      const svg = node("svg", { width: 26, height: 8, viewBox: "0 0 26 8" });
      svg.append(node("path", { class: "line", d: "M0 4H26", stroke: color, "stroke-dasharray": DASHES[dashes] }));
      swatch.append(svg);
    }
    for (const dial of dials) dial.addEventListener("input", update);
    new ResizeObserver(update).observe(figure);
    figure.querySelector(".tir-dials").hidden = false;
    update();
  };

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".tir-explorer").forEach(explore));
})();
