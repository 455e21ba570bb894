// What charts and copy buttons answer to. Listens on the document once, so that charts drawn later need no set-up.
(() => {
  const short = (value) =>
    value === null ? "–" : Math.abs(value) >= 1000 ? value.toLocaleString("en") : Number(value.toPrecision(4)).toString();

  function nearest(points, x) {
    let low = 0, high = points.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (points[middle][0] < x) low = middle; else high = middle;
    }
    return x - points[low][0] < points[high][0] - x ? points[low] : points[high];
  }

  function clear(plot) {
    plot.querySelectorAll(".lab-cursor, .lab-values").forEach((one) => one.remove());
  }

  // Show every line's value nearest to `share` of the way across the plot.
  function show(plot, share) {
    const chart = JSON.parse(plot.dataset.chart);
    const x = chart.low + share * (chart.high - chart.low);
    clear(plot);
    plot.lastShare = share;
    const cursor = document.createElement("div");
    cursor.className = "lab-cursor";
    cursor.style.left = `${share * 100}%`;
    const values = document.createElement("div");
    values.className = "lab-values";
    values.style[share < 0.5 ? "right" : "left"] = "6px";
    const head = document.createElement("div");
    head.textContent = `${chart.x}: ${short(chart.high - chart.low > 20 ? Math.round(x) : x)}`;
    values.append(head);
    for (const one of chart.series) {
      const [at, value] = nearest(one.points, x);
      const row = document.createElement("div"), key = document.createElement("i");
      key.className = `lab-key c${one.colour}`;
      row.append(key, `${one.name}${one.level ? "" : ` ${short(value)}`}${!one.level && Math.abs(at - x) > (chart.high - chart.low) / 50 ? ` (at ${short(at)})` : ""}`);
      values.append(row);
    }
    plot.append(cursor, values);
  }

  const plotOf = (event) => event.target.closest?.(".lab-plot[data-chart]");
  document.addEventListener("pointermove", (event) => {
    const plot = plotOf(event);
    document.querySelectorAll(".lab-plot:has(.lab-values)").forEach((other) => other !== plot && clear(other));
    if (!plot) return;
    const box = plot.getBoundingClientRect();
    show(plot, Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1));
  });
  document.addEventListener("keydown", (event) => {
    const plot = plotOf(event), way = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
    if (!plot || !way) return;
    event.preventDefault();
    show(plot, Math.min(Math.max((plot.lastShare ?? 0.5) + way, 0), 1));
  });
  document.addEventListener("focusout", (event) => plotOf(event) && clear(plotOf(event)));

  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.(".lab-copy");
    if (!button) return;
    await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
    button.textContent = "copied";
    setTimeout(() => (button.textContent = "copy"), 1500);
  });
})();

// Keep what is looked at in the address, without loading anything anew. Until somebody touches the page, the address is
// theirs: building the page selects its first tab, which must not overwrite the one that was asked for.
let touched = false;
for (const kind of ["pointerdown", "keydown"]) document.addEventListener(kind, () => (touched = true), true);
window.labAddress = (name, value) => {
  if (!touched) return;
  const address = new URL(window.location);
  if (value) address.searchParams.set(name, value);
  else address.searchParams.delete(name);
  window.history.replaceState(null, "", address);
};

// Light or dark: the system's choice until somebody chooses here.
(() => {
  const chosen = localStorage.getItem("lab-theme");
  if (chosen && !new URL(window.location).searchParams.has("__theme"))
    document.addEventListener("DOMContentLoaded", () => document.body.classList.toggle("dark", chosen === "dark"));
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.(".lab-theme")) return;
    const dark = document.body.classList.toggle("dark");
    localStorage.setItem("lab-theme", dark ? "dark" : "light");
  });
})();
