import { graphFile, type OnnxArchitecture } from '../../shared/model/onnxModel.ts';

/** genai_config.json: how onnxruntime-genai finds its way through the graph. */
export function genaiConfig(a: OnnxArchitecture, ids: { bos: number | null; eos: number[] }): string {
  const named = (what: string) => ({
    key: `${what}.%d.key`,
    value: `${what}.%d.value`,
  });
  const past = named('past_key_values');
  const present = named('present');
  const config = {
    model: {
      type: a.family,
      ...(ids.bos !== null && { bos_token_id: ids.bos }),
      eos_token_id: ids.eos,
      ...(ids.eos.length > 0 && { pad_token_id: ids.eos[0] }),
      context_length: a.contextLength,
      vocab_size: a.vocabSize,
      decoder: {
        session_options: { log_id: 'onnxruntime-genai', provider_options: [] },
        filename: graphFile,
        head_size: a.headDim,
        hidden_size: a.hiddenSize,
        num_attention_heads: a.numHeads,
        num_hidden_layers: a.numLayers,
        num_key_value_heads: a.numKvHeads,
        inputs: {
          input_ids: 'input_ids',
          attention_mask: 'attention_mask',
          past_key_names: past.key,
          past_value_names: past.value,
        },
        outputs: {
          logits: 'logits',
          present_key_names: present.key,
          present_value_names: present.value,
        },
      },
    },
    search: { do_sample: false, max_length: a.contextLength, past_present_share_buffer: true },
  };
  return `${JSON.stringify(config, null, 2)}\n`;
}
