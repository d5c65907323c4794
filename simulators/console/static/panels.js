// On a small screen one panel is shown at a time.

export class Panels {
  constructor() {
    for (const button of document.querySelectorAll("[data-show]")) {
      button.addEventListener("click", () => this.show(button.dataset.show));
    }
    document.querySelector("[data-show-books]")?.addEventListener("click", () => this.show("books"));
  }

  get shown() {
    return document.body.dataset.panel;
  }

  show(panel) {
    document.body.dataset.panel = panel;
    for (const button of document.querySelectorAll("[data-show]")) {
      button.setAttribute("aria-pressed", String(button.dataset.show === panel));
    }
    this.changed?.();
    window.scrollTo(0, 0);
  }
}
