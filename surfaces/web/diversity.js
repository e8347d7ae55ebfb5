/** The slider for diversity: 0 orders by relevance alone, 1 as unlike one another as can be (maximal marginal relevance). */

import { el } from "./dom.js";
import { percent } from "./words.js";

let sliders = 0;

export class Diversity {
  /** `onChange(value)`: a number as a string, empty for 0. */
  constructor(onChange) {
    const id = `diversity-${(sliders += 1)}`;
    this.input = el("input", { id, class: "slider", type: "range", min: "0", max: "1", step: "0.05", value: "0" });
    this.output = el("output", { for: id });
    this.input.addEventListener("input", () => this.#tell());
    this.input.addEventListener("change", () => onChange(Number(this.input.value) ? this.input.value : ""));
    this.element = el("div", { class: "filter" }, el("label", { class: "label", for: id }, "Diversity ", this.output), this.input);
    this.#tell();
  }

  draw(value) {
    this.input.value = value || "0";
    this.#tell();
  }

  #tell() {
    const words = Number(this.input.value) ? percent(this.input.value) : "off";
    this.output.textContent = words;
    this.input.setAttribute("aria-valuetext", words);
  }
}
