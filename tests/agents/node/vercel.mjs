// Runs one scenario with the Vercel AI SDK and prints what came of it as JSON.
//
//   BASE_URL=… API_KEY=… FRUIT=… node vercel.mjs compatible|chat|responses|anthropic tools|streamedTools|object

import process from "node:process";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, isStepCount, Output, streamText, tool } from "ai";
import { z } from "zod";

const [dialect, scenario] = process.argv.slice(2);
const { BASE_URL: baseURL, API_KEY: apiKey, FRUIT: fruit } = process.env;
if (!baseURL || !apiKey) throw new Error("BASE_URL and API_KEY are needed");
const id = "kimi-k2-instruct-0905";

const models = {
  compatible: () =>
    createOpenAICompatible({ name: "kimi", baseURL, apiKey, supportsStructuredOutputs: true }).chatModel(id),
  chat: () => createOpenAI({ baseURL, apiKey }).chat(id),
  responses: () => createOpenAI({ baseURL, apiKey }).responses(id),
  anthropic: () => createAnthropic({ baseURL, apiKey })(id),
};

const called = [];
const read_note = tool({
  description: "Reads a note.",
  inputSchema: z.object({ name: z.string().describe("The note's name") }),
  execute: ({ name }) => {
    called.push(name);
    return { note: `The note says: ${fruit}.` };
  },
});
const asked = { model: models[dialect](), prompt: "Which fruit is in the note?", maxRetries: 0 };
const withTool = { ...asked, tools: { read_note }, stopWhen: isStepCount(4) };

const scenarios = {
  async tools() {
    const { text, steps } = await generateText(withTool);
    return { text, called, reasons: steps.map((step) => step.finishReason) };
  },

  async streamedTools() {
    const result = streamText({
      ...withTool,
      onError: ({ error }) => {
        throw error;
      },
    });
    let text = "";
    for await (const piece of result.textStream) text += piece;
    return { text, called, reasons: (await result.steps).map((step) => step.finishReason) };
  },

  async object() {
    const schema = z.object({ fruit: z.string(), grams: z.number() });
    return (await generateText({ ...asked, output: Output.object({ schema }) })).output;
  },
};

console.log(JSON.stringify(await scenarios[scenario]()));
