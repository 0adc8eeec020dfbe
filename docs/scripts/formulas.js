// Renders what arithmatex leaves as \( \) and \[ \], with the KaTeX that the build put beside the pages.
document.addEventListener("DOMContentLoaded", () => {
  for (const element of document.querySelectorAll(".arithmatex")) {
    const [, open, formula] = element.textContent.trim().match(/^\\([([])([^]*)\\[)\]]$/);
    katex.render(formula, element, { displayMode: open === "[", throwOnError: false });
  }
});
