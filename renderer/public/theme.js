// Runs before the first paint, so that a chosen theme never flashes. app/theme/theme.ts has the rest.
try {
  const theme = localStorage.getItem('caravan.theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // Storage is blocked: the system's theme holds.
}
