/** What was dropped: paths where the file manager tells them, else only names, which is all that a browser gives. */
export function readDrop(files: readonly File[] | null, data: DataTransfer | null) {
  const list = data?.getData('text/uri-list') || data?.getData('text/plain') || '';
  const paths = list.split(/\r?\n/).flatMap((line) => {
    if (line.startsWith('file://')) return [decodeURIComponent(new URL(line).pathname)];
    return /^(\/|[A-Za-z]:\\)/.test(line) ? [line] : [];
  });
  return { paths, names: paths.length > 0 ? [] : (files ?? []).map((file) => file.name) };
}
