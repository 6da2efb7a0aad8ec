// What transformers.js answers to the prompts of a proof: node browser.mjs TASK RESULT
//
// In: a JSON file that names the exported folder and holds the prompts. Out: a JSON file with the
// prompt's length, the greedy tokens and each step's likeliest tokens. The package is looked for from
// the folder that node is called in. Nothing is fetched.
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(path.join(process.cwd(), "prompts.js"));
const { AutoModelForImageTextToText, AutoProcessor, LogitsProcessor, LogitsProcessorList, RawImage, env } =
  await import(pathToFileURL(require.resolve("@huggingface/transformers")));

const task = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
env.allowRemoteModels = false;
env.localModelPath = path.dirname(task.folder) + path.sep;
const name = path.basename(task.folder);

class Likeliest extends LogitsProcessor {
  steps = [];
  _call(inputIds, logits) {
    const values = logits.data;
    let most = -Infinity;
    for (const value of values) most = Math.max(most, value);
    let sum = 0;
    for (const value of values) sum += Math.exp(value - most);
    const order = Array.from(values.keys()).sort((one, other) => values[other] - values[one]);
    const normalizer = most + Math.log(sum);
    this.steps.push(order.slice(0, task.top).map((token) => [token, values[token] - normalizer]));
    return logits;
  }
}

const processor = await AutoProcessor.from_pretrained(name);
const model = await AutoModelForImageTextToText.from_pretrained(name, { dtype: "fp32" });
const answers = [];
for (const prompt of task.prompts) {
  const content = [{ type: "image" }, { type: "text", text: prompt.question }];
  if (!prompt.is_picture_first) content.reverse();
  const messages = [{ role: "user", content }];
  const text = processor.apply_chat_template(messages, { add_generation_prompt: true });
  const inputs = await processor(text, [await RawImage.read(prompt.picture)]);
  const length = inputs.input_ids.dims.at(-1);
  const likeliest = new Likeliest();
  const processors = new LogitsProcessorList();
  processors.push(likeliest);
  const output = await model.generate({
    ...inputs,
    max_new_tokens: task.max_new_tokens,
    do_sample: false,
    logits_processor: processors,
  });
  const ids = output.slice(null, [length, null]).tolist()[0].map(Number);
  answers.push({ num_prompt_tokens: length, token_ids: ids, steps: likeliest.steps });
}
fs.writeFileSync(process.argv[3], JSON.stringify(answers));
