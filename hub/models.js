// The list of runs: ticking, and what survives that the list is drawn anew.
const ticked = new Set();
let focused = null, telling = null;

// A tick box is no choice of its row. Before anything else that listens for clicks here.
element.addEventListener("click", (event) => {
  if (event.target.closest(".lab-models-tick")) return event.stopImmediatePropagation();
  const source = event.target.closest("[data-act]");
  if (source?.dataset.act === "open") open(source.dataset.run);
  else if (source) trigger("more");
});

// Fill the hidden field that says which run is opened: the server is asked once, by that field's own change.
function open(run) {
  const field = document.querySelector("#models-run textarea, #models-run input");
  field.value = run;
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

element.addEventListener("change", (event) => {
  const run = event.target.dataset.tick;
  if (!run) return;
  if (event.target.checked) ticked.add(run); else ticked.delete(run);
  clearTimeout(telling); // several in a row are told at once
  telling = setTimeout(() => trigger("ticked", { runs: [...ticked] }), 150);
});

document.addEventListener("focusin", (event) => {
  focused = element.contains(event.target) ? (event.target.dataset.key ?? null) : null;
});

watch("value", () => {
  for (const box of element.querySelectorAll("[data-tick]")) box.checked = ticked.has(box.dataset.tick);
  if (focused && document.activeElement === document.body)
    element.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
});
