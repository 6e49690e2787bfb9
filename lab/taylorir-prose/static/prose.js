// Shows the prose of the notebooks in JupyterLab as the book shows it. `make lab` loads this file as it stands.
//
// Two steps. Before JupyterLab renders Markdown, MyST's roles and directives become plain Markdown, and each
// {glue:text} a <span> with its name and format. After a cell of the same notebook has run, the spans are filled
// with the values that taylorir.report.glue_values left in its outputs.
"use strict";

(() => {
  const GLUED = "taylorir-glued";
  const UNKNOWN = "…"; // until the cell that glues it has run

  // [pattern, replacement], in this order.
  const MYST = [
    [/^:::+\{[\w-]+\}[ \t]*(.*)((?:\n:[\w-]+:.*)*)$/gm, (_, title) => `<blockquote>\n\n${title && `**${title}**\n`}`],
    [/^:::+[ \t]*$/gm, "\n</blockquote>\n"],
    [/\{glue:text\}`(?:[^`]*::)?([^`:]+)(?::([^`]*))?`/g, (_, name, spec) => `<span class="${GLUED}" title="${name}:${spec ?? ""}">${UNKNOWN}</span>`],
    [/\{eq\}`(?:eq-)?([^`]*)`/g, (_, name) => `equation *${name.replaceAll("-", " ")}*`],
    [/\{(?:py:)?(?:func|class|mod|meth|data|attr|obj)\}`~[^`]*\.([^`.]+)`/g, "`$1`"],
    [/\{(?:py:)?(?:func|class|mod|meth|data|attr|obj)\}(`[^`]*`)/g, "$1"],
    [/\{[a-z][\w:-]*\}`([^`<]+?)\s*<[^`]*>`/g, "$1"],
    [/\{[a-z][\w:-]*\}`([^`]*)`/g, "$1"],
  ];

  function plainMarkdown(source) {
    return MYST.reduce((text, [pattern, replacement]) => text.replace(pattern, replacement), source);
  }

  // As Python's format() does it, for the formats that prose uses.
  function format(value, spec) {
    const parts = /^(\+?)(#?)(,?)(?:\.(\d+))?([defg%]?)$/.exec(spec);
    if (typeof value !== "number" || !parts) return String(value);
    const [, plus, alternate, comma, precision, kind] = parts;
    const digits = precision === undefined ? 6 : Number(precision);
    const grouped = (number, places) =>
      comma ? number.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places }) : number.toFixed(places);
    const shown = {
      d: () => grouped(value, 0),
      f: () => grouped(value, digits),
      "%": () => `${grouped(100 * value, digits)}%`,
      e: () => value.toExponential(digits).replace(/e([+-])(\d)$/, "e$10$2"),
      g: () => (alternate ? value.toPrecision(digits) : String(Number(value.toPrecision(digits)))),
      "": () => String(value),
    }[kind]();
    return plus && value >= 0 ? `+${shown}` : shown;
  }

  function gluedValues(notebook) {
    const values = new Map();
    for (const cell of notebook.cells)
      for (const output of cell.type === "code" ? cell.outputs.toJSON() : []) {
        const { name, mime_prefix: prefix } = output.metadata?.scrapbook ?? {};
        const text = name === undefined ? undefined : output.data?.[`${prefix}text/plain`];
        if (text === undefined) continue;
        const literal = Array.isArray(text) ? text.join("") : text;
        const word = /^(['"])(.*)\1$/s.exec(literal);
        const key = name.startsWith(prefix) ? name.slice(prefix.length) : name;
        values.set(key, word ? word[2].replace(/\\(.)/g, "$1") : Number(literal));
      }
    return values;
  }

  function fill(panel) {
    const spans = panel.node.querySelectorAll(`.${GLUED}`);
    if (!spans.length || !panel.content.model) return;
    const values = gluedValues(panel.content.model);
    for (const span of spans) {
      const [name, spec] = span.title.split(/:(.*)/s);
      const text = values.has(name) ? format(values.get(name), spec) : UNKNOWN;
      if (span.textContent !== text) span.textContent = text;
    }
  }

  function keepFilled(panel) {
    let waiting = false;
    const soon = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        fill(panel);
      });
    };
    const observer = new MutationObserver(soon);
    observer.observe(panel.node, { childList: true, subtree: true });
    panel.disposed.connect(() => observer.disconnect());
    soon();
  }

  function plugin({ IMarkdownParser }, { INotebookTracker }) {
    return {
      id: "taylorir-prose:plugin",
      description: "Glued numbers in prose, and no raw roles.",
      autoStart: true,
      requires: [IMarkdownParser, INotebookTracker],
      activate: (_app, parser, tracker) => {
        const render = parser.render.bind(parser);
        parser.render = (source) => render(plainMarkdown(source));
        tracker.forEach(keepFilled);
        tracker.widgetAdded.connect((_tracker, panel) => keepFilled(panel));
      },
    };
  }

  // The container that JupyterLab asks for an extension's modules (webpack's module federation).
  let shared;
  const sharedModule = async (name) => (await Object.values(shared[name])[0].get())();
  window._JUPYTERLAB ??= {};
  window._JUPYTERLAB["taylorir-prose"] = {
    init: (scope) => {
      shared = scope;
    },
    get: async () => {
      const extension = plugin(await sharedModule("@jupyterlab/rendermime"), await sharedModule("@jupyterlab/notebook"));
      return () => extension;
    },
  };
})();
