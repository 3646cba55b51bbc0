// Runs before the first paint, so that a chosen theme never flashes. app/theme/theme.ts has the rest.
try {
  const theme = localStorage.getItem('caravan.theme');
  if (['light', 'dark', 'contrast'].includes(theme)) document.documentElement.dataset.theme = theme;
  if (localStorage.getItem('caravan.density') === 'compact')
    document.documentElement.dataset.density = 'compact';
} catch {
  // Storage is blocked: the system's theme holds.
}
