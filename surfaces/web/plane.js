/** The window onto the map: which part of the plane is in sight, and which point is near. Pixels are CSS pixels. */

const LARGEST = 60;
const MARGIN = 36;

export class Plane {
  width = 1;
  height = 1;
  zoom = 1;
  x = 0; // the plane's point in the middle of the window
  y = 0;

  resize(width, height) {
    Object.assign(this, { width, height });
  }

  reset() {
    Object.assign(this, { zoom: 1, x: 0, y: 0 });
  }

  /** Pixels for a unit of the plane, across and down: at zoom 1 all of it fits. */
  get scale() {
    return [(this.zoom * (this.width - 2 * MARGIN)) / 2, (this.zoom * (this.height - 2 * MARGIN)) / 2];
  }

  toPixels({ x, y }) {
    const [sx, sy] = this.scale;
    return [this.width / 2 + (x - this.x) * sx, this.height / 2 - (y - this.y) * sy];
  }

  /** Zoom by a factor, with the plane's point under this pixel staying there. */
  zoomAt(px, py, factor) {
    const before = this.#toPlane(px, py);
    this.zoom = Math.min(LARGEST, Math.max(1, this.zoom * factor));
    const after = this.#toPlane(px, py);
    this.#move(before.x - after.x, before.y - after.y);
  }

  pan(dx, dy) {
    const [sx, sy] = this.scale;
    this.#move(-dx / sx, dy / sy);
  }

  /** Move just so far that the point is well in sight. */
  reveal(point) {
    const [px, py] = this.toPixels(point);
    const out = (at, size) => Math.min(0, at - MARGIN) + Math.max(0, at - size + MARGIN);
    this.pan(-out(px, this.width), -out(py, this.height));
  }

  /** The nearest of the points to a pixel within `reach`, or null. */
  nearest(points, px, py, reach = 14) {
    let [best, least] = [null, reach * reach];
    for (const point of points) {
      const [x, y] = this.toPixels(point);
      const distance = (x - px) ** 2 + (y - py) ** 2;
      if (distance < least) [best, least] = [point, distance];
    }
    return best;
  }

  /** The point to go to from another in a direction ([1, 0]: right, [0, 1]: down): near, and not far off to the side. */
  next(points, from, [dx, dy]) {
    const [fx, fy] = this.toPixels(from);
    let [best, least] = [null, Infinity];
    for (const point of points) {
      const [x, y] = this.toPixels(point);
      const along = (x - fx) * dx + (y - fy) * dy;
      const aside = Math.abs((x - fx) * dy) + Math.abs((y - fy) * dx);
      if (along <= 0.5 || aside > along * 1.2) continue;
      const cost = along + 2 * aside;
      if (cost < least) [best, least] = [point, cost];
    }
    return best;
  }

  #toPlane(px, py) {
    const [sx, sy] = this.scale;
    return { x: this.x + (px - this.width / 2) / sx, y: this.y - (py - this.height / 2) / sy };
  }

  #move(dx, dy) {
    const edge = 1.1 - 1 / this.zoom / 2;
    this.x = Math.min(edge, Math.max(-edge, this.x + dx));
    this.y = Math.min(edge, Math.max(-edge, this.y + dy));
  }
}
