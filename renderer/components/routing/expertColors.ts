/** Experts keep their colour everywhere: evenly spread hues, light enough behind text in one theme, dark enough in the other. */
export function expertTint(expert: number, experts: number): string {
  const hue = ((expert * 360) / experts + 20) % 360;
  return `light-dark(oklch(0.89 0.08 ${hue}), oklch(0.38 0.08 ${hue}))`;
}

/** The same hue as a mark beside text or a bar. */
export function expertMark(expert: number, experts: number): string {
  const hue = ((expert * 360) / experts + 20) % 360;
  return `light-dark(oklch(0.6 0.13 ${hue}), oklch(0.74 0.12 ${hue}))`;
}
