// A written text's tokens: choosing one tells Python which, and the arrow keys go from one to the next.
element.addEventListener("click", (event) => {
  const token = event.target.closest("[data-token]");
  if (!token) return;
  element.querySelectorAll('[aria-pressed="true"]').forEach((one) => one.setAttribute("aria-pressed", "false"));
  token.setAttribute("aria-pressed", "true");
  trigger("act", { token: token.dataset.token, text: token.closest("[data-text]").dataset.text });
});

element.addEventListener("keydown", (event) => {
  const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!way || !event.target.closest("[data-token]")) return;
  event.preventDefault();
  const all = [...element.querySelectorAll("[data-token]")];
  all[all.indexOf(event.target.closest("[data-token]")) + way]?.focus();
});
