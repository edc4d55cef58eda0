// For the gr.HTML with the documents: `element` and `trigger` are Gradio's. Listens at the top, because what is
// inside is rendered anew all the time.
const calm = matchMedia("(prefers-reduced-motion: reduce)");

function light(chip) {
  document.querySelectorAll(".card.lit").forEach((card) => card.classList.remove("lit"));
  const card = element.querySelector(`#card-${chip.dataset.card}`);
  card?.classList.add("lit");
  return card;
}

document.addEventListener("focusin", (event) => {
  const chip = event.target.closest?.(".cite");
  if (chip) light(chip);
});

document.addEventListener("click", (event) => {
  const chip = event.target.closest(".cite");
  const card = chip && light(chip);
  if (card) card.scrollIntoView({ block: "center", behavior: calm.matches ? "auto" : "smooth" });
});

element.addEventListener("click", (event) => {
  const clicked = event.target.closest("[data-switch]");
  if (!clicked || clicked.disabled) return;
  const token = clicked.closest("[data-token]").dataset.token;
  trigger("switch", { place: Number(clicked.dataset.switch), token });
});
