// Buttons above the table of claims that leave the rows of one verdict, and a field that leaves rows with a word.
document.addEventListener("DOMContentLoaded", () => {
  const table = document.querySelector("table.verdicts");
  if (!table) return;
  const rows = [...table.tBodies[0].rows];
  const verdictOf = row => row.querySelector(".verdict").textContent;
  const bar = document.createElement("div");
  bar.className = "tir-filter";
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", "Claims to show");
  const said = document.createElement("span");
  said.setAttribute("role", "status");
  const field = document.createElement("input");
  field.type = "search";
  field.placeholder = "with the word";
  field.setAttribute("aria-label", "Show claims with the word");

  let chosen = "all";
  const buttons = ["all", ...new Set(rows.map(verdictOf))].map(verdict => {
    const button = document.createElement("button");
    const count = verdict === "all" ? rows.length : rows.filter(row => verdictOf(row) === verdict).length;
    button.type = "button";
    button.textContent = `${verdict} (${count})`;
    button.dataset.verdict = verdict;
    button.addEventListener("click", () => { chosen = verdict; show(); });
    return button;
  });

  function show() {
    const word = field.value.trim().toLowerCase();
    for (const row of rows) {
      const fits = chosen === "all" || verdictOf(row) === chosen;
      row.hidden = !(fits && row.textContent.toLowerCase().includes(word));
    }
    for (const button of buttons) button.setAttribute("aria-pressed", button.dataset.verdict === chosen);
    said.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} claims`;
  }

  field.addEventListener("input", show);
  bar.append(...buttons, field, said);
  (table.closest(".pst-scrollable-table-container") || table).before(bar);
  show();
});
