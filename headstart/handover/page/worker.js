// Runs the model beside the page, so that the page stays alive meanwhile. One request after another:
// {id, kind: "start" | "ask" | "replay", ...} is answered by {id, found}, or {id, failure}.
//
// It takes the graphics processor if the site has the files for it and the browser offers a real one.
import {decoded, UnreadableError} from "./decode.js";

const here = name => new URL(name, import.meta.url).href;
const MAX_THREADS = 4;  // more than one only where the web server isolates the page from other origins
let ort, session, model, site;

async function read(name) {
  const reply = await fetch(here(name));
  if (!reply.ok) throw new Error(`${name}: status ${reply.status}`);
  return reply;
}

async function graphics(wanted) {
  const adapter = site.webgpu && wanted !== "wasm" ? await navigator.gpu?.requestAdapter() : null;
  return adapter && (wanted === "webgpu" || !adapter.info?.isFallbackAdapter);  // a fallback is slower than WebAssembly
}

// `wanted`: "wasm", "webgpu", or null for what is best here.
async function start({wanted}) {
  [site, model] = await Promise.all(["site.json", "model/model.json"].map(async name => (await read(name)).json()));
  const backend = await graphics(wanted) ? "webgpu" : "wasm";
  const [data, library] = await Promise.all([
    read("model/model.onnx").then(reply => reply.arrayBuffer()), import(here(`runtime/ort.${backend}.js`)),
  ]);
  ort = library;
  ort.env.logLevel = "error";
  ort.env.wasm.wasmPaths = {mjs: here(`runtime/${backend}.js`), wasm: here(`runtime/${backend}.wasm`)};
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(MAX_THREADS, navigator.hardwareConcurrency) : 1;
  session = await ort.InferenceSession.create(new Uint8Array(data), {executionProviders: [backend], logSeverityLevel: 3});
  return {site, model, backend, version: site.onnxruntime_web};
}

async function ask({file}) {
  const {width, height, rgb} = await decoded(file, model.bits ?? 16);
  const image = new ort.Tensor("uint8", rgb, [1, height, width, 3]);
  const began = performance.now();
  let found;
  try {
    found = await session.run({image});
  } catch (error) {
    console.warn(error);
    throw new UnreadableError("large");  // memory is short
  }
  const ms = performance.now() - began, probabilities = [...found.probabilities.data];
  const best = probabilities.indexOf(Math.max(...probabilities));
  return {
    label: model.classes[best],
    probability: probabilities[best],
    abstains: probabilities[best] < (model.abstain_below ?? 0),
    novelty: found.novelty ? found.novelty.data[0] : null,
    probabilities,
    ms,
  };
}

// Compares the answers to the conformance images with those that came with the model.
async function replay() {
  const expected = await (await read("model/conformance/expected.json")).json();
  const wrong = [], unread = [], times = [];
  let furthest = 0;
  for (const {file, label, probabilities} of expected.images) {
    let answer;
    try {
      answer = await ask({file: await (await read(`model/conformance/${encodeURIComponent(file)}`)).blob()});
    } catch (error) {
      if (!(error instanceof UnreadableError)) throw error;
      unread.push(file);
      continue;
    }
    const apart = Math.max(...answer.probabilities.map((value, index) => Math.abs(value - probabilities[index])));
    if (!(apart <= site.tolerance) || answer.label !== label) wrong.push(file);
    furthest = Math.max(furthest, apart);
    times.push(answer.ms);
  }
  times.sort((a, b) => a - b);
  return {n_images: expected.images.length, wrong, unread, furthest, image_ms: times[times.length >> 1] ?? 0};
}

const does = {start, ask, replay};
let before = Promise.resolve();
self.onmessage = ({data: {id, kind, ...request}}) => {
  before = before.then(async () => {
    try {
      self.postMessage({id, found: await does[kind](request)});
    } catch (error) {
      if (!(error instanceof UnreadableError)) console.warn(error);
      self.postMessage({id, failure: error instanceof UnreadableError ? error.message : "broken"});
    }
  });
};
