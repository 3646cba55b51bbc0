// Must be imported before any schema is made: zod would otherwise probe `new Function`, which the page's
// Content-Security-Policy forbids and reports.
import * as z from 'zod';

z.config({ jitless: true });
