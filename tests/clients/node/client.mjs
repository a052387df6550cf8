// Runs one scenario with the official SDK and prints what came of it as JSON. The tests decide what it should be.
//
//   OPENAI_BASE_URL=… OPENAI_API_KEY=… node client.mjs plain|stream|session|models [model]

import process from "node:process";
import OpenAI from "openai";

const [scenario, model = "kimi-k2-instruct-0905"] = process.argv.slice(2);
// Both are given by name, so that a forgotten variable fails here and never reaches OpenAI itself.
const { OPENAI_BASE_URL: baseURL, OPENAI_API_KEY: apiKey } = process.env;
if (!baseURL || !apiKey) throw new Error("OPENAI_BASE_URL and OPENAI_API_KEY are needed");
const client = new OpenAI({ baseURL, apiKey, maxRetries: Number(process.env.MAX_RETRIES ?? 0), timeout: 20_000 });

const said = (content) => [{ role: "user", content }];

const scenarios = {
  async plain() {
    const { data, response } = await client.chat.completions.create({ model, messages: said("Hello") }).withResponse();
    return {
      text: data.choices[0].message.content,
      finishReason: data.choices[0].finish_reason,
      usage: data.usage,
      model: data.model,
      requestId: data._request_id,
      requestIdHeader: response.headers.get("x-request-id"),
    };
  },

  async stream() {
    const stream = await client.chat.completions.create({
      model,
      messages: said("Hello"),
      stream: true,
      stream_options: { include_usage: true },
    });
    const seen = { pieces: [], finishReasons: [], usage: null };
    for await (const chunk of stream) {
      for (const choice of chunk.choices) {
        if (choice.delta.content) seen.pieces.push(choice.delta.content);
        if (choice.finish_reason) seen.finishReasons.push(choice.finish_reason);
      }
      seen.usage = chunk.usage ?? seen.usage;
    }
    return seen;
  },

  async session() {
    const ask = (text) => client.chat.completions.create({ model, messages: said(text), user: "mio" });
    await ask("My name is Mio.");
    return { text: (await ask("What is my name?")).choices[0].message.content };
  },

  async models() {
    const ids = [];
    for await (const listed of client.models.list()) ids.push(listed.id);
    return { ids, retrieved: (await client.models.retrieve(model)).id };
  },
};

const describe = (error) => ({
  class: error.constructor.name,
  isStatusError: error instanceof OpenAI.APIError && error.status !== undefined,
  status: error.status,
  code: error.code,
  param: error.param,
  type: error.type,
  requestId: error.requestID,
});

let outcome;
try {
  outcome = await scenarios[scenario]();
} catch (error) {
  if (!(error instanceof OpenAI.APIError)) throw error;
  outcome = { error: describe(error) };
}
console.log(JSON.stringify(outcome));
