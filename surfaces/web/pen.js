/** The few shapes that drawings are made of. */

import { svg } from "./dom.js";

export const circle = (cx, cy, r, colour, more = {}) => svg("circle", { cx, cy, r, fill: colour, ...more });
export const rect = (x, y, width, height, colour, more = {}) => svg("rect", { x, y, width, height, fill: colour, ...more });
export const path = (d, colour, more = {}) => svg("path", { d, fill: colour, ...more });
export const line = (d, colour, width, more = {}) => svg("path", { d, fill: "none", stroke: colour, "stroke-width": width, "stroke-linecap": "round", ...more });
export const at = (...numbers) => numbers.map((number) => Math.round(number * 10) / 10).join(" ");
