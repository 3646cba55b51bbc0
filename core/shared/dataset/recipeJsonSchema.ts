import * as z from 'zod';
import { recipeSchema } from './recipe.ts';

/** recipe.yaml for editors: completion, hints and red lines. The source of docs/recipe.schema.json. */
export function recipeJsonSchema(): object {
  const schema = z.toJSONSchema(recipeSchema, { io: 'input', target: 'draft-7' });
  return { ...schema, title: 'Caravan recipe', description: 'What a mix is made of: recipe.yaml.' };
}
