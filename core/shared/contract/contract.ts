/**
 * The one contract: every call and event between a host and its clients (window, browser tab, command line, tests).
 * Both sides parse what they receive with these schemas. Carriers (message port, WebSocket, local socket) move the
 * messages of wire.ts and know nothing of their meaning.
 */
import * as z from 'zod';
import {
  answerFactsSchema,
  answerSchema,
  chatMessageSchema,
  chatThreadSchema,
  samplingSchema,
  spelledTokenSchema,
  tokenRoutesSchema,
} from '../chat/chat.ts';
import {
  datasetRefSchema,
  importPreviewSchema,
  lookQuerySchema,
  lookRowSchema,
  lookStatisticsSchema,
  lookWindowSchema,
  previewRequestSchema,
  rawRowSchema,
  renderedRowSchema,
  yardstickSchema,
} from '../dataset/look.ts';
import {
  benchmarkInspectionSchema,
  benchmarkSchema,
  benchmarkSplits,
  contaminationMatchSchema,
} from '../dataset/decontamination.ts';
import { mixComparisonSchema, mixExportFormats } from '../dataset/mixExport.ts';
import { mixPreviewSchema, mixRejectSchema } from '../dataset/preview.ts';
import { mixSchema, recipeSchema, templates } from '../dataset/recipe.ts';
import {
  columnMappingSchema,
  messageSchema,
  rejectedRowSchema,
  rejectReasons,
  rowOriginSchema,
  sourceFormats,
  sourceRowSchema,
  sourceSchema,
} from '../dataset/source.ts';
import { hubAccessSchema, hubKinds, hubPlanSchema } from '../hub/hubReference.ts';
import { jobSchema } from '../job/job.ts';
import {
  exportLayouts,
  exportOfferSchema,
  exportRecordSchema,
  exportSchema,
  exportTypes,
  mergeBases,
} from '../model/export.ts';
import { modelRefSchema, modelSchema, tokenizerFactsSchema } from '../model/model.ts';
import { contractErrorSchema } from './errors.ts';
import { cudaStatusSchema } from '../run/cudaStatus.ts';
import {
  evaluationSchema,
  planSchema,
  predictionSchema,
  runSchema,
  seriesSchema,
  stepSchema,
  tagSchema,
  variedFields,
} from '../run/run.ts';
import { devices } from '../run/device.ts';
import { runConfigSchema } from '../run/runConfig.ts';
import { cleanableKinds, cleanUpSchema, storageSchema } from '../storage.ts';

/** Raised when a client and a host of different ages could misunderstand each other. */
export const contractVersion = 1;

const none = z.object({}).strict();
const queueSchema = z.object({ startsAt: z.number().nullable() });
const id = z.object({ id: z.string() }).strict();
const page = {
  after: z.number().int().min(-1).default(-1),
  limit: z.number().int().min(1).max(1000).default(100),
};

/** `auto`: as the run was trained, else the model's own, else Camelidae's. */
const askedTemplate = z.enum(['auto', ...templates]).default('auto');

/** A dataset, and what its rows were measured with, if anything. */
const looked = { of: datasetRefSchema, yardstick: yardstickSchema.nullable().default(null) };

/** `effect: 'read'` calls change nothing and answer within 50 ms; `write` calls over ~200 ms return a job. */
function call<P extends z.ZodType, R extends z.ZodType>(effect: 'read' | 'write', params: P, result: R) {
  return { effect, params, result };
}

const deviceSchema = z.object({
  /** As run.yaml names it. */
  device: z.enum(devices),
  kind: z.enum(['cpu', 'cuda']),
  name: z.string(),
  units: z.number(),
  totalMemoryBytes: z.number(),
  /** Null for a GPU whose driver does not tell. */
  freeMemoryBytes: z.number().nullable(),
});

const openAiStatusSchema = z.object({
  enabled: z.boolean(),
  /** There is a key that opens it. */
  hasKey: z.boolean(),
  /** Where it is to be reached; null while the workbench is open to no browser. */
  url: z.string().nullable(),
});

export const calls = {
  // system
  hello: call(
    'read',
    none,
    z.object({
      contractVersion: z.number(),
      version: z.string(),
      home: z.string(),
      pid: z.number(),
      startedAt: z.number(),
    }),
  ),
  doctor: call(
    'write',
    none,
    z.object({
      checks: z.array(
        z.object({
          name: z.string(),
          status: z.enum(['ok', 'warning', 'missing']),
          found: z.string(),
          mend: z.string().nullable(),
        }),
      ),
      devices: z.array(deviceSchema),
      /** What there is for computing on a GPU, and what is missing; null where the engine does not load. */
      cuda: cudaStatusSchema.nullable(),
      versions: z.record(z.string(), z.string()),
    }),
  ),
  systemStatus: call(
    'read',
    none,
    z.object({
      devices: z.array(deviceSchema),
      loadAverage: z.number(),
      memory: z.object({ totalBytes: z.number(), freeBytes: z.number() }),
      disk: z.object({ totalBytes: z.number(), freeBytes: z.number() }),
      processes: z.array(
        z.object({
          name: z.string(),
          pid: z.number(),
          /** Null where the system does not tell. */
          memoryBytes: z.number().nullable(),
          /** The run that an engine trains; null for every other process. */
          runId: z.string().nullable(),
        }),
      ),
    }),
  ),
  /** What the home takes of the disk; may take seconds. */
  readStorage: call('write', none, storageSchema),
  /** Removes what can be had again, and never what is in use; `dryRun` only says what would go. */
  cleanStorage: call(
    'write',
    z.object({ kinds: z.array(z.enum(cleanableKinds)).min(1), dryRun: z.boolean().default(false) }).strict(),
    cleanUpSchema,
  ),
  /** Answers before the host ends. `onlyIfIdle`: not while jobs or runs are at work (`wrong_state`). */
  shutdownHost: call('write', z.object({ onlyIfIdle: z.boolean().default(false) }).strict(), none),
  /** Opens the workbench for browsers, inside this host; answers what already stands if it does. The URL carries a
   * one-time launch token. It stays open until everyone who asked for it has asked to stop or is gone. */
  startServe: call(
    'write',
    z
      .object({
        host: z.string().default('127.0.0.1'),
        /** Absent: the default port, or the next free one. */
        port: z.number().int().min(0).max(65535).optional(),
        allowedHosts: z.array(z.string()).default([]),
        /** Make a new token for programs; the old one and every session end. */
        newToken: z.boolean().default(false),
      })
      .strict(),
    z.object({ url: z.string(), port: z.number().int(), warning: z.string().nullable() }),
  ),
  stopServe: call('write', none, none),
  /** The endpoint that speaks as OpenAI's does, beside the workbench for browsers. */
  openAiStatus: call('read', none, openAiStatusSchema),
  /** Opens or closes it; it stays so. A key is told once, when it is made: the first time, and with `newKey`. */
  setOpenAi: call(
    'write',
    z.object({ enabled: z.boolean(), newKey: z.boolean().default(false) }).strict(),
    openAiStatusSchema.extend({ key: z.string().nullable() }),
  ),

  // jobs
  listJobs: call('read', none, z.array(jobSchema)),
  getJob: call('read', id, jobSchema),
  getJobLog: call('read', id, z.object({ lines: z.array(z.string()) })),
  cancelJob: call('write', id, jobSchema),
  pauseJob: call('write', id, jobSchema),
  resumeJob: call('write', id, jobSchema),
  /** Among those that wait for the same device; 1 is next. */
  moveJob: call('write', z.object({ id: z.string(), place: z.number().int().min(1) }).strict(), jobSchema),
  holdJob: call('write', z.object({ id: z.string(), held: z.boolean() }).strict(), jobSchema),
  /** `startsAt`: when held jobs are released, milliseconds since 1970; null: when someone says so. */
  getQueue: call('read', none, queueSchema),
  setQueue: call('write', queueSchema.strict(), queueSchema),
  /** Releases everything that is held, in its order. */
  startQueue: call('write', none, none),

  // datasets
  importSource: call(
    'write',
    z
      .object({
        /** Absolute paths, or `hub:OWNER/NAME[@REVISION][:FILES]`. */
        files: z.array(z.string()).min(1),
        name: z.string().min(1).optional(),
        format: z.enum(sourceFormats).default('auto'),
        mapping: columnMappingSchema.optional(),
        access: hubAccessSchema.optional(),
      })
      .strict(),
    jobSchema,
  ),
  listSources: call('read', none, z.array(sourceSchema)),
  getSource: call('read', id, sourceSchema),
  readSourceRows: call('write', z.object({ id: z.string(), ...page }).strict(), z.array(sourceRowSchema)),
  readSourceRejects: call(
    'write',
    z.object({ id: z.string(), ...page }).strict(),
    z.array(rejectedRowSchema),
  ),
  removeSource: call('write', id, none),
  buildMix: call(
    'write',
    z
      .object({
        recipe: recipeSchema,
        /** Folder that relative paths of the recipe start from. */
        baseDir: z.string(),
        /** Absent: below the home. */
        outDir: z.string().optional(),
        access: hubAccessSchema.optional(),
      })
      .strict(),
    jobSchema,
  ),
  /** What building the recipe would give. The job's subject is the preview; files that the recipe names are imported. */
  previewMix: call(
    'write',
    z.object({ recipe: recipeSchema, baseDir: z.string(), access: hubAccessSchema.optional() }).strict(),
    jobSchema,
  ),
  /** The newest few are kept while the host lives. */
  readMixPreview: call('write', id, mixPreviewSchema),
  /** Of a mix or a preview: every row that is not in it. */
  readMixRejects: call(
    'write',
    z
      .object({
        id: z.string(),
        source: z.string().optional(),
        reason: z.enum(rejectReasons).optional(),
        step: z.string().optional(),
        ...page,
      })
      .strict(),
    z.array(mixRejectSchema),
  ),
  /** Of a mix or a preview: rows beside the items of benchmarks that they repeat. */
  readContamination: call(
    'write',
    z
      .object({
        id: z.string(),
        benchmark: z.string().optional(),
        split: z.enum(benchmarkSplits).optional(),
        ...page,
      })
      .strict(),
    z.array(contaminationMatchSchema),
  ),
  /** What a benchmark's files are taken for. `path` is absolute. */
  inspectBenchmark: call(
    'write',
    z.object({ benchmark: benchmarkSchema }).strict(),
    benchmarkInspectionSchema,
  ),
  listMixes: call('read', none, z.array(mixSchema)),
  getMix: call('read', id, mixSchema),
  readMixRows: call(
    'write',
    z.object({ id: z.string(), split: z.enum(['train', 'validation']).default('train'), ...page }).strict(),
    z.array(sourceRowSchema.extend({ source: z.string(), tokens: z.number().nullable() })),
  ),
  removeMix: call('write', id, none),
  /** For other programs: data files, a dataset card and the recipe, in a folder that must be absent or empty. The job's
   * subject is the mix. */
  exportMix: call(
    'write',
    z.object({ id: z.string(), format: z.enum(mixExportFormats), outDir: z.string() }).strict(),
    jobSchema,
  ),
  /** What a mix (`to`) has and another has not; each by id, name or folder. */
  compareMixes: call('write', z.object({ from: z.string(), to: z.string() }).strict(), mixComparisonSchema),
  /** Out of the library, into the trash: nothing is deleted until `removeSource` or `removeMix`. */
  trashDataset: call('write', z.object({ of: datasetRefSchema }).strict(), none),
  /** Back from the trash; under another name where its own is taken by now, which is answered. */
  restoreDataset: call('write', z.object({ of: datasetRefSchema }).strict(), z.object({ name: z.string() })),
  listTrash: call('read', none, z.object({ sources: z.array(sourceSchema), mixes: z.array(mixSchema) })),

  // looking at rows
  /** What an import would make of files; changes nothing. */
  previewImport: call('write', previewRequestSchema, importPreviewSchema),
  /** The first look at a dataset makes an index: its job, which must have ended before any other call of these. */
  openLook: call(
    'write',
    z.object(looked).strict(),
    z.object({
      job: jobSchema.nullable(),
      /** Its rows were measured with this yardstick. */
      measured: z.boolean(),
    }),
  ),
  /** Rows that a query finds. A search reads all text and may take seconds: `lookProgressed` carries `lookId`. */
  countLook: call(
    'write',
    z.object({ lookId: z.string().min(1).max(64), ...looked, query: lookQuerySchema }).strict(),
    z.object({ total: z.number().int() }),
  ),
  cancelLook: call('write', z.object({ lookId: z.string() }).strict(), none),
  readLook: call(
    'write',
    z
      .object({
        ...looked,
        query: lookQuerySchema,
        from: z.number().int().min(0),
        count: z.number().int().min(1).max(500),
      })
      .strict(),
    lookWindowSchema,
  ),
  /** Where a row stands in what a query finds; null where it is not among it. */
  findLook: call(
    'write',
    z.object({ ...looked, query: lookQuerySchema, key: z.number().int().min(0) }).strict(),
    z.object({ position: z.number().int().nullable() }),
  ),
  describeLook: call('write', z.object(looked).strict(), lookStatisticsSchema),
  /** Tokenises every row, for lengths in tokens and for what becomes of each. */
  measureDataset: call(
    'write',
    z.object({ of: datasetRefSchema, yardstick: yardstickSchema }).strict(),
    jobSchema,
  ),
  readRow: call(
    'write',
    z.object({ ...looked, key: z.number().int().min(0) }).strict(),
    z.object({
      row: lookRowSchema,
      hash: z.string(),
      messages: z.array(messageSchema),
      /** Key of the earlier row with the same words. */
      duplicateOf: z.number().int().nullable(),
      /** The source of the library that it came from, and its number there. */
      origin: z.object({ id: z.string(), name: z.string(), key: z.number().int() }).nullable(),
    }),
  ),
  renderRow: call(
    'write',
    z.object({ of: datasetRefSchema, key: z.number().int().min(0), yardstick: yardstickSchema }).strict(),
    renderedRowSchema,
  ),
  readRawRow: call(
    'write',
    z.object({ of: datasetRefSchema, key: z.number().int().min(0) }).strict(),
    rawRowSchema.extend({ file: z.string() }),
  ),

  // the hub
  hubStatus: call(
    'read',
    none,
    z.object({
      endpoint: z.string(),
      /** Where the token comes from that is sent there; null: there is none. */
      token: z.enum(['environment', 'home', 'huggingface']).nullable(),
    }),
  ),
  /** Keeps a token for the hub that the host speaks to, for its owner's eyes alone; null forgets it. */
  setHubToken: call('write', z.object({ token: z.string().min(1).max(2000).nullable() }).strict(), none),
  /** What a download would bring; downloads nothing. */
  inspectHub: call(
    'write',
    z.object({ kind: z.enum(hubKinds), reference: z.string(), access: hubAccessSchema.optional() }).strict(),
    hubPlanSchema,
  ),

  // models
  /** Links a folder or GGUF file into the library; with `copy`, what it holds is copied into the home first. */
  addModel: call(
    'write',
    z
      .object({
        /** Absolute, or `hub:OWNER/NAME[@REVISION][:FILE]`, which is downloaded into the home. */
        path: z.string(),
        name: z.string().min(1).optional(),
        copy: z.boolean().default(false),
        access: hubAccessSchema.optional(),
      })
      .strict(),
    jobSchema,
  ),
  /** What adding a path would give; changes nothing. */
  previewModel: call(
    'write',
    z.object({ path: z.string() }).strict(),
    z.object({
      /** What is there, by its files alone. */
      found: z.enum(['folder', 'gguf']).nullable(),
      name: z.string(),
      files: z.array(z.object({ name: z.string(), bytes: z.number() })),
      /** What a copy would take, and what the disk of the home has left. */
      copyBytes: z.number(),
      freeBytes: z.number(),
      /** Null where it is refused. */
      model: modelSchema.omit({ id: true, addedAt: true }).nullable(),
      problem: contractErrorSchema.nullable(),
      /** The model of the library that this path is already. */
      known: z.object({ id: z.string(), name: z.string() }).nullable(),
    }),
  ),
  listModels: call('read', none, z.array(modelSchema)),
  getModel: call('read', id, modelSchema),
  inspectModel: call(
    'write',
    z.object({ model: modelRefSchema }).strict(),
    modelSchema.omit({ id: true, addedAt: true }),
  ),
  /** For good. What was copied into the home is deleted; files that were linked stay as they are. */
  removeModel: call('write', id, none),
  /** Out of the library, into the trash: nothing is deleted until `removeModel`. */
  trashModel: call('write', id, none),
  /** Back from the trash; under another name where its own is taken by now, which is answered. */
  restoreModel: call('write', id, z.object({ name: z.string() })),
  listModelTrash: call('read', none, z.array(modelSchema)),
  describeTokenizer: call('write', z.object({ model: modelRefSchema }).strict(), tokenizerFactsSchema),
  /** A text as the tokens of rows and users: what is spelled like a special token stays text. */
  spellText: call(
    'write',
    z.object({ model: modelRefSchema, text: z.string().max(20_000) }).strict(),
    z.object({
      tokens: z.array(
        z.object({
          text: z.string(),
          ids: z.array(z.number().int()),
          /** How the vocabulary writes each id. */
          pieces: z.array(z.string()),
          special: z.boolean(),
        }),
      ),
      count: z.number().int(),
    }),
  ),
  /** A whole conversation as training sees it: `target` is what is learned. */
  renderConversation: call(
    'write',
    z
      .object({ model: modelRefSchema, messages: z.array(messageSchema).min(1), template: askedTemplate })
      .strict(),
    z.object({ template: z.enum(templates), tokens: z.array(spelledTokenSchema), count: z.number().int() }),
  ),
  tokenize: call(
    'write',
    z.object({ model: modelRefSchema, texts: z.array(z.string()).max(100_000) }).strict(),
    z.object({ ids: z.array(z.array(z.number().int())) }),
  ),

  // training
  planRun: call(
    'write',
    z.object({ config: runConfigSchema, probe: z.boolean().default(false) }).strict(),
    planSchema,
  ),
  /** The plan asked backwards: the largest value of one field that fits into so much memory. */
  planLargest: call(
    'write',
    z
      .object({
        config: runConfigSchema,
        vary: z.enum(variedFields),
        /** Absent: what is available now. */
        memoryBytes: z.number().positive().optional(),
      })
      .strict(),
    z.object({
      memoryBytes: z.number(),
      /** Null where not even the least value fits. */
      largest: z.object({ value: z.number().int(), totalMemoryBytes: z.number() }).nullable(),
      /** What the value may be at most whatever the memory. */
      most: z.number().int(),
    }),
  ),
  readPrediction: call('read', id, predictionSchema),
  /** `hold`: it waits in the queue until that is started, or comes to its time. */
  startRun: call(
    'write',
    z.object({ config: runConfigSchema, hold: z.boolean().default(false) }).strict(),
    runSchema,
  ),
  resumeRun: call('write', id, runSchema),
  pauseRun: call('write', id, runSchema),
  continueRun: call('write', id, runSchema),
  stopRun: call('write', id, runSchema),
  /** Newest first, those in the trash too; without a limit all of them. */
  listRuns: call(
    'read',
    z
      .object({
        /** The run after which the page begins. */
        after: z.string().optional(),
        limit: z.number().int().min(1).max(1000).optional(),
      })
      .strict(),
    z.array(runSchema),
  ),
  getRun: call('read', id, runSchema),
  findRun: call('read', z.object({ ref: z.string() }).strict(), runSchema),
  updateRun: call(
    'write',
    z
      .object({
        id: z.string(),
        name: z.string().min(1).optional(),
        note: z.string().optional(),
        tags: z.array(tagSchema).max(32).optional(),
        starred: z.boolean().optional(),
        archived: z.boolean().optional(),
      })
      .strict(),
    runSchema,
  ),
  /** Out of every list; nothing is deleted until `removeRun`. */
  trashRun: call('write', id, runSchema),
  restoreRun: call('write', id, runSchema),
  removeRun: call('write', id, none),
  readSteps: call(
    'read',
    z
      .object({
        id: z.string(),
        fromStep: z.number().int().default(0),
        limit: z.number().int().min(1).max(2000).default(500),
      })
      .strict(),
    z.array(stepSchema),
  ),
  /**
   * Downsampled to about `buckets` points per metric, each bucket giving its minimum, maximum and last value. Buckets are cut
   * at the same steps wherever a range begins. Beside the metrics of a step: `tokensSeen` and `trainedMs`, summed up to it.
   */
  readSeries: call(
    'read',
    z
      .object({
        id: z.string(),
        metrics: z.array(z.string()).min(1).max(64),
        fromStep: z.number().int().optional(),
        toStep: z.number().int().optional(),
        buckets: z.number().int().min(10).max(10_000).default(1000),
      })
      .strict(),
    z.array(
      seriesSchema.extend({
        min: z.array(z.number().nullable()),
        max: z.array(z.number().nullable()),
        /** Steps of each bucket whose value was not finite. */
        nonFinite: z.array(z.number().int()),
      }),
    ),
  ),
  readEvaluations: call('read', id, z.array(evaluationSchema)),
  readRunLog: call(
    'read',
    z.object({ id: z.string(), tail: z.number().int().min(1).max(5000).default(200) }).strict(),
    z.object({ lines: z.array(z.string()) }),
  ),
  readStepRows: call(
    'write',
    z.object({ id: z.string(), step: z.number().int() }).strict(),
    z.array(
      z.object({
        row: z.number().int(),
        source: z.string(),
        loss: z.number().nullable(),
        tokens: z.number().int(),
        messages: z.array(messageSchema),
        ...rowOriginSchema.shape,
      }),
    ),
  ),

  // exports
  /** The job's subject is the export's id. */
  exportRun: call(
    'write',
    z
      .object({
        /** A run, its folder, or one of its checkpoints; for ONNX also a model as it came. */
        run: modelRefSchema,
        layout: z.enum(exportLayouts),
        /** Absent: bf16, and for GGUF and ONNX f16. */
        type: z.enum(exportTypes).optional(),
        mergeInto: z.enum(mergeBases).default('trained'),
        /** Absolute; must not be there yet, or be empty. */
        outDir: z.string(),
        /** A safetensors file is cut before it grows beyond this. */
        shardBytes: z
          .number()
          .int()
          .min(1)
          .default(5 * 2 ** 30),
      })
      .strict(),
    jobSchema,
  ),
  /** Every format, with what it would take or why it cannot be; reads headers alone. */
  offerExports: call(
    'write',
    z
      .object({
        run: modelRefSchema,
        /** For the formats that have it; the others, and by default all, are asked for their usual type. */
        type: z.enum(exportTypes).optional(),
        mergeInto: z.enum(mergeBases).default('trained'),
        /** Absolute: its disk is looked at, and whether it is free. */
        outDir: z.string().optional(),
      })
      .strict(),
    z.object({
      /** Null for a model as it came, which ONNX alone carries. */
      run: z.object({ id: z.string(), name: z.string(), method: z.string(), step: z.number() }).nullable(),
      base: z.object({ name: z.string(), dtype: z.string() }),
      formats: z.array(exportOfferSchema),
      /** Null where no `outDir` was asked for. */
      place: z.object({ freeBytes: z.number(), problem: contractErrorSchema.nullable() }).nullable(),
    }),
  ),
  /** Newest first; without the comparison of each tensor, which `getExport` has. */
  listExports: call('read', none, z.array(exportSchema)),
  getExport: call('read', id, exportSchema),
  /** The export.json of any export's folder. */
  readExport: call('write', z.object({ dir: z.string() }).strict(), exportRecordSchema),

  // chat, score, route
  listThreads: call('read', none, z.array(chatThreadSchema)),
  readThread: call('read', id, z.object({ thread: chatThreadSchema, messages: z.array(chatMessageSchema) })),
  /** Threads whose title or messages hold the text, the last talked in first; `excerpt` is where. */
  searchThreads: call(
    'read',
    z.object({ text: z.string().min(1), limit: z.number().int().min(1).max(200).default(50) }).strict(),
    z.array(z.object({ thread: chatThreadSchema, excerpt: z.string() })),
  ),
  /** `parent: null` lets a pane become a thread of its own. */
  updateThread: call(
    'write',
    z.object({ id: z.string(), title: z.string().min(1).optional(), parent: z.null().optional() }).strict(),
    chatThreadSchema,
  ),
  /** A new thread that holds all up to a message. */
  branchThread: call('write', z.object({ id: z.string(), messageId: z.string() }).strict(), chatThreadSchema),
  /** Removes the panes beside it, too. */
  removeThread: call('write', id, none),
  /**
   * Streams `answerToken` events that carry `answerId`; the result is the whole answer. `threadId` keeps it. With
   * `continues` the last message is an answer that was cut; what comes is its continuation alone.
   */
  generateAnswer: call(
    'write',
    z
      .object({
        answerId: z.string().min(1).max(64),
        model: modelRefSchema,
        messages: z.array(messageSchema).min(1),
        template: askedTemplate,
        sampling: samplingSchema,
        threadId: z.string().nullable().default(null),
        continues: z.boolean().default(false),
        baseDtype: z.enum(['f32', 'bf16', 'nf4']).optional(),
      })
      .strict(),
    answerSchema.extend({ facts: answerFactsSchema }),
  ),
  /** Goes on with a text as it stands, without a template. Streams and is cancelled as an answer is. */
  completeText: call(
    'write',
    z
      .object({
        answerId: z.string().min(1).max(64),
        model: modelRefSchema,
        text: z.string().min(1),
        sampling: samplingSchema,
      })
      .strict(),
    answerSchema,
  ),
  cancelAnswer: call('write', z.object({ answerId: z.string() }).strict(), none),
  createThread: call(
    'write',
    z
      .object({
        title: z.string(),
        model: modelRefSchema,
        /** A thread that is no pane itself. */
        parent: z.string().nullable().default(null),
      })
      .strict(),
    chatThreadSchema,
  ),
  /** The prompt as the model sees it. */
  renderPrompt: call(
    'write',
    z
      .object({ model: modelRefSchema, messages: z.array(messageSchema).min(1), template: askedTemplate })
      .strict(),
    z.object({ template: z.enum(templates), tokens: z.array(spelledTokenSchema), count: z.number().int() }),
  ),
  score: call(
    'write',
    z
      .object({
        model: modelRefSchema,
        rows: z.array(z.object({ context: z.string(), continuation: z.string() })).max(100_000),
        baseDtype: z.enum(['f32', 'bf16', 'nf4']).optional(),
      })
      .strict(),
    z.array(
      z.object({
        logprob: z.number(),
        tokenLogprobs: z.array(z.number()),
        ids: z.array(z.number().int()),
        greedy: z.boolean(),
      }),
    ),
  ),
  route: call(
    'write',
    z
      .object({
        model: modelRefSchema,
        rows: z.array(z.object({ text: z.string(), source: z.string().default('all') })).max(100_000),
        baseDtype: z.enum(['f32', 'bf16', 'nf4']).optional(),
      })
      .strict(),
    z.object({
      layers: z.number(),
      experts: z.number(),
      /** Shares (layers x experts, row-major) per source; `any` counts every slot and sums to topK per layer. */
      sources: z.array(
        z.object({
          source: z.string(),
          tokens: z.number(),
          first: z.array(z.number()),
          second: z.array(z.number()),
          any: z.array(z.number()),
        }),
      ),
      /** Mean over layers of the mutual information (nats) between a token's experts and its source. */
      mutualInformation: z.number().nullable(),
    }),
  ),
  /** Which experts each token of a text, or of a conversation, goes to. */
  routeTokens: call(
    'write',
    z
      .object({
        model: modelRefSchema,
        of: z.union([
          z.object({ text: z.string().min(1) }).strict(),
          z.object({ messages: z.array(messageSchema).min(1) }).strict(),
        ]),
        template: askedTemplate,
        baseDtype: z.enum(['f32', 'bf16', 'nf4']).optional(),
      })
      .strict(),
    tokenRoutesSchema,
  ),
} as const;

export type Calls = typeof calls;
export type CallName = keyof Calls;
export type CallParams<N extends CallName> = z.infer<Calls[N]['params']>;
/** What a caller may leave out where there is a default. */
export type CallInput<N extends CallName> = z.input<Calls[N]['params']>;
export type CallResult<N extends CallName> = z.infer<Calls[N]['result']>;

export const events = {
  jobChanged: jobSchema,
  queueChanged: queueSchema,
  jobLogged: z.object({ id: z.string(), line: z.string() }),
  sourcesChanged: none,
  mixesChanged: none,
  /** Share of the text that a search has read; null where it is not known. */
  lookProgressed: z.object({ lookId: z.string(), share: z.number().nullable() }),
  modelsChanged: none,
  runChanged: runSchema,
  runRemoved: z.object({ id: z.string() }),
  runStepped: z.object({ id: z.string(), steps: z.array(stepSchema) }),
  runEvaluated: z.object({ id: z.string(), evaluation: evaluationSchema }),
  runLogged: z.object({ id: z.string(), lines: z.array(z.string()) }),
  answerToken: z.object({ answerId: z.string(), text: z.string(), tokens: z.number().int() }),
  threadsChanged: none,
  exportsChanged: none,
  hostClosing: z.object({ reason: z.string() }),
} as const;

export type Events = typeof events;
export type EventName = keyof Events;
export type EventPayload<N extends EventName> = z.infer<Events[N]>;
