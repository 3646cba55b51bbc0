/** Every security setting of the app, after Electron's checklist; security.test.ts reads each of them back. */
import type { Session, WebContents, WebPreferences } from 'electron';

export const pageScheme = 'app';
export const pageHost = 'workbench';
export const pageUrl = `${pageScheme}://${pageHost}/`;

/** Not `bypassCSP`, `allowServiceWorkers` or `corsEnabled`: the page asks for its own files alone. */
export const pageSchemePrivileges = {
  standard: true,
  secure: true,
  supportFetchAPI: true,
  stream: true,
  codeCache: true,
} as const;

/** Defaults are written out: nothing here rests on what a later Electron may choose. */
export function windowPreferences(preload: string): WebPreferences {
  return {
    preload,
    nodeIntegration: false,
    nodeIntegrationInWorker: false,
    nodeIntegrationInSubFrames: false,
    contextIsolation: true,
    sandbox: true,
    webSecurity: true,
    allowRunningInsecureContent: false,
    experimentalFeatures: false,
    webviewTag: false,
    navigateOnDragDrop: false,
    safeDialogs: true,
    spellcheck: false,
    // The loss curve and its notifications go on while another window is in front.
    backgroundThrottling: true,
  };
}

/** Whether an address is the page's. Node calls the origin of every app:// address 'null': scheme and host are compared. */
export function isPageUrl(text: string): boolean {
  try {
    const url = new URL(text);
    return url.protocol === `${pageScheme}:` && url.host === pageHost;
  } catch {
    return false;
  }
}

/** Copying is all that the page may ask the system for. */
const permitted: ReadonlySet<string> = new Set(['clipboard-sanitized-write']);

export function guardSession(session: Session): void {
  session.setPermissionRequestHandler((contents, permission, answer, details) =>
    answer(permitted.has(permission) && isPageUrl(details.requestingUrl ?? contents.getURL())),
  );
  session.setPermissionCheckHandler(
    (_contents, permission, origin) => permitted.has(permission) && isPageUrl(origin),
  );
  session.setDevicePermissionHandler(() => false);
  session.setDisplayMediaRequestHandler(null);
  // A page could otherwise make the app write files that nobody asked for; what it saves itself is a blob of its own.
  session.on('will-download', (event, item) => {
    if (!/^(blob:app:\/\/workbench\/|data:)/.test(item.getURL())) event.preventDefault();
  });
}

/** For every web contents that ever comes to be. */
export function guardContents(contents: WebContents): void {
  const refuseStrangers = (event: { url: string; preventDefault(): void }): void => {
    if (!isPageUrl(event.url)) event.preventDefault();
  };
  contents.on('will-navigate', refuseStrangers);
  contents.on('will-frame-navigate', refuseStrangers);
  contents.on('will-redirect', refuseStrangers);
  contents.on('will-attach-webview', (event) => event.preventDefault());
  contents.setWindowOpenHandler(() => ({ action: 'deny' }));
}

/** @returns the address, where it is one that a browser may be asked to open; null for anything else */
export function webAddress(text: unknown): URL | null {
  if (typeof text !== 'string' || text.length > 2000) return null;
  try {
    const url = new URL(text);
    return url.protocol === 'https:' && url.username === '' && url.password === '' ? url : null;
  } catch {
    return null;
  }
}
