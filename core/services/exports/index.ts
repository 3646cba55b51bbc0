export { createExportsService } from './createExportsService.ts';
export type { ExportCalls, ExportsDeps, ExportsService } from './exportTypes.ts';
