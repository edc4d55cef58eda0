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

// What the panels call: the threshold's slider has log-odds, its number P(relevant).
window.liteProbability = (x, span) => {
  if (Math.abs(x) >= span) return x > 0 ? 1 : 0;
  const rest = Number((1 / (1 + Math.exp(Math.abs(x)))).toPrecision(3));
  return x > 0 ? Number((1 - rest).toFixed(9)) : rest;
};
window.liteLogOdds = (p, span) => {
  if (p <= 0 || p >= 1) return p >= 1 ? span : -span;
  return Math.max(-span, Math.min(span, Math.log(p) - Math.log1p(-p)));
};

// Whatever has just changed is seen to have changed, on a phone, too, and where its column scrolls apart from the page.
window.liteShow = (id) => {
  const part = document.getElementById(id);
  part?.closest("#right")?.scrollTo({ top: 0 });
  const box = part?.getBoundingClientRect();
  if (box && (box.top < 0 || box.top > innerHeight * 0.5)) {
    part.scrollIntoView({ block: "start" });
  }
};
