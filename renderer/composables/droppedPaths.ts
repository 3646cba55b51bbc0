/**
 * What was dropped: paths where the app or the file manager tells them, else only names, which is all that a browser gives.
 */
export function readDrop(files: readonly File[] | null, data: DataTransfer | null) {
  const { desktop } = window.workbench ?? {};
  const known = desktop
    ? (files ?? []).map((file) => desktop.pathOf(file)).filter((path) => path !== '')
    : [];
  const list = data?.getData('text/uri-list') || data?.getData('text/plain') || '';
  const named = list.split(/\r?\n/).flatMap((line) => {
    if (line.startsWith('file://')) return [decodeURIComponent(new URL(line).pathname)];
    return /^(\/|[A-Za-z]:\\)/.test(line) ? [line] : [];
  });
  const paths = known.length > 0 ? known : named;
  return { paths, names: paths.length > 0 ? [] : (files ?? []).map((file) => file.name) };
}
