"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");

  // theme: what the system says, until a reader chooses; a file's storage may be closed to scripts
  const themes = ["auto", "light", "dark"];
  const themeButton = document.getElementById("theme");
  const stored = () => { try { return localStorage.getItem("evalscope-vacc-theme"); } catch { return null; } };
  const showTheme = (theme) => {
    if (theme === "auto") root.removeAttribute("data-theme"); else root.setAttribute("data-theme", theme);
    themeButton.textContent = themeButton.dataset.label + themeButton.dataset[theme];
    themeButton.value = theme;
  };
  showTheme(themes.includes(stored()) ? stored() : "auto");
  themeButton.addEventListener("click", () => {
    const next = themes[(themes.indexOf(themeButton.value) + 1) % themes.length];
    showTheme(next);
    try { localStorage.setItem("evalscope-vacc-theme", next); } catch { /* it holds for this visit */ }
  });

  // sorting: numbers by data-value, everything else as text; an empty cell stays last
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = head.querySelector("button");
      if (!button) return;
      button.addEventListener("click", () => {
        const first = head.dataset.first || "ascending";
        const second = first === "ascending" ? "descending" : "ascending";
        const order = head.getAttribute("aria-sort") === first ? second : first;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
        const numeric = head.classList.contains("number");
        const rows = [...table.tBodies[0].rows].map((row, position) => ({ row, position, key: key(row) }));
        rows.sort((a, b) => {
          if (a.key === "" || b.key === "") return (a.key === "") - (b.key === "") || a.position - b.position;
          const order = numeric ? a.key - b.key : a.key.localeCompare(b.key, root.lang, { numeric: true });
          return sign * order || a.position - b.position;
        });
        table.tBodies[0].append(...rows.map((entry) => entry.row));
      });
    });
  }

  // filtering
  const scores = document.getElementById("score-table");
  if (scores) {
    const input = document.getElementById("filter");
    const count = document.getElementById("shown");
    const none = document.getElementById("none");
    const buttons = [...document.querySelectorAll("[data-verdict-filter]")];
    const rows = [...scores.tBodies[0].rows];
    let verdict = "";
    const apply = () => {
      const words = input.value.toLocaleLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const fits = (!verdict || row.dataset.verdict === verdict)
          && words.every((word) => row.dataset.search.toLocaleLowerCase().includes(word));
        row.hidden = !fits;
        shown += fits;
      }
      count.textContent = count.dataset.text.replace("{shown}", shown).replace("{total}", rows.length);
      none.hidden = shown > 0;
    };
    input.addEventListener("input", apply);
    for (const button of buttons) {
      button.addEventListener("click", () => {
        verdict = button.dataset.verdictFilter;
        buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
        apply();
      });
    }
    apply();
  }

  // copying; a page that was opened from a file may not have the clipboard
  for (const button of document.querySelectorAll("[data-copy]")) {
    if (!navigator.clipboard) { button.hidden = true; continue; }
    const label = button.textContent;
    button.addEventListener("click", () => {
      navigator.clipboard.writeText(button.parentElement.querySelector("pre").textContent).then(() => {
        button.textContent = button.dataset.done;
        setTimeout(() => { button.textContent = label; }, 1500);
      }, () => { button.hidden = true; });
    });
  }

  const download = document.getElementById("download");
  download.addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([document.getElementById("numbers").textContent], { type: "application/json" }));
    link.download = "report.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
})();
