import { Template } from '@huggingface/jinja';
import type { RenderJinja } from '../shared/dataset/template.ts';

const compiled = new Map<string, Template>();

/** Renders a chat template as transformers does (blocks trimmed, `raise_exception` throws). */
export const renderJinja: RenderJinja = (source, context) => {
  let template = compiled.get(source);
  if (!template) {
    template = new Template(source);
    compiled.set(source, template);
  }
  return template.render(context);
};
