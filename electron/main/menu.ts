import type { MenuItemConstructorOptions } from 'electron';
import type { OpenTarget } from '../../core/shared/contract/workbench.ts';

export interface MenuActions {
  open(target: OpenTarget): void;
  openFile(): void;
  openHelp(): void;
  quit(): void;
}

/** The page has the keyboard: its own shortcuts (palette, side bar, …) are not taken again here. */
export function menuTemplate(
  actions: MenuActions,
  platform: NodeJS.Platform,
  isPackaged: boolean,
): MenuItemConstructorOptions[] {
  const isMac = platform === 'darwin';
  const go = (label: string, path: string): MenuItemConstructorOptions => ({
    label,
    click: () => actions.open({ kind: 'route', path }),
  });
  const quit: MenuItemConstructorOptions = {
    label: isMac ? 'Quit Caravan' : 'Quit',
    accelerator: 'CmdOrCtrl+Q',
    click: () => actions.quit(),
  };
  return [
    ...(isMac
      ? [
          {
            label: 'Caravan',
            submenu: [
              { role: 'about' as const },
              { type: 'separator' as const },
              { role: 'hide' as const },
              { role: 'hideOthers' as const },
              { type: 'separator' as const },
              quit,
            ],
          },
        ]
      : []),
    {
      label: '&File',
      submenu: [
        {
          label: 'Open recipe.yaml or run.yaml…',
          accelerator: 'CmdOrCtrl+O',
          click: () => actions.openFile(),
        },
        { type: 'separator' },
        isMac ? { role: 'close' } : quit,
      ],
    },
    { role: 'editMenu' },
    {
      label: '&Go',
      submenu: [
        go('Home', '/'),
        go('Datasets', '/datasets'),
        go('Train', '/train'),
        go('Experiments', '/experiments'),
        go('Chat', '/chat'),
        go('Routing', '/routing'),
        go('Jobs', '/jobs'),
      ],
    },
    {
      label: '&View',
      submenu: [
        { role: 'reload' },
        { type: 'separator' },
        { role: 'resetZoom' },
        { role: 'zoomIn' },
        { role: 'zoomOut' },
        { type: 'separator' },
        { role: 'togglefullscreen' },
        // Of use to those who build Caravan; the installed app keeps its page to itself.
        ...(isPackaged ? [] : [{ role: 'toggleDevTools' as const }]),
      ],
    },
    { role: 'windowMenu' },
    { role: 'help', submenu: [{ label: 'User guide', click: () => actions.openHelp() }] },
  ];
}
