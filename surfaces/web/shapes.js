/** Point shapes of the map, of about equal weight, around the origin, as SVG paths for a radius of 1. */

const round = (r) => `M${r} 0A${r} ${r} 0 1 1 ${-r} 0A${r} ${r} 0 1 1 ${r} 0Z`;

const around = (count, radius, turn = -Math.PI / 2) =>
  `M${Array.from({ length: count }, (_, i) => {
    const angle = turn + (2 * Math.PI * i) / count;
    const r = Array.isArray(radius) ? radius[i % radius.length] : radius;
    return `${(r * Math.cos(angle)).toFixed(3)} ${(r * Math.sin(angle)).toFixed(3)}`;
  }).join("L")}Z`;

export const SHAPES = {
  circle: round(0.92),
  square: "M-.82-.82H.82V.82H-.82Z",
  triangle: around(3, 1.2),
  diamond: around(4, 1.15),
  plus: "M-.36-1.08h.72v.72h.72v.72h-.72v.72h-.72v-.72h-.72v-.72h.72Z",
  star: around(10, [1.3, 0.56]),
  hexagon: around(6, 1.02),
  ring: `${round(1.05)}M.5 0A.5 .5 0 1 0-.5 0A.5 .5 0 1 0 .5 0Z`,
  bowtie: "M-1.05-.9 1.05.9V-.9L-1.05.9Z",
  bar: "M-1.15-.5H1.15V.5H-1.15Z",
};
