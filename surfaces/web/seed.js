/** Chance that repeats: the same name always gives the same numbers. */

/** A generator of numbers in [0, 1), from a text (FNV-1a, then mulberry32). */
export function seeded(text) {
  let hash = 2166136261;
  for (const char of text) hash = Math.imul(hash ^ char.codePointAt(0), 16777619);
  let step = hash >>> 0;
  return () => {
    step = (step + 0x6d2b79f5) | 0;
    let mixed = Math.imul(step ^ (step >>> 15), 1 | step);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

export const between = (random, low, high) => low + (high - low) * random();
export const whole = (random, low, high) => Math.floor(between(random, low, high + 1));
export const pick = (random, list) => list[Math.floor(random() * list.length)];

/** A copy in another order. */
export function shuffled(random, list) {
  const order = [...list];
  for (let i = order.length - 1; i > 0; i -= 1) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
