// Runs one scenario with Google's SDK and prints what came of it as JSON.
//
//   GATEWAY_URL=… GATEWAY_KEY=… FRUIT=… node gemini.mjs SCENARIO

import process from "node:process";
import { ApiError, GoogleGenAI, Type } from "@google/genai";

const { GATEWAY_URL: baseUrl, GATEWAY_KEY: apiKey, FRUIT: fruit } = process.env;
if (!baseUrl || !apiKey) throw new Error("GATEWAY_URL and GATEWAY_KEY are needed");
const client = new GoogleGenAI({ apiKey, httpOptions: { baseUrl, timeout: 20_000, retryOptions: { attempts: 1 } } });
const model = "kimi-k2-instruct-0905";
const asked = { model, contents: "Which fruit is in the note?" };
const readNote = {
  name: "read_note",
  description: "Reads a note.",
  parameters: { type: Type.OBJECT, properties: { name: { type: Type.STRING } }, required: ["name"] },
};

const scenarios = {
  async plain() {
    const answer = await client.models.generateContent(asked);
    return { text: answer.text, finishReason: answer.candidates[0].finishReason, usage: answer.usageMetadata };
  },

  async stream() {
    const pieces = [];
    let last;
    for await (last of await client.models.generateContentStream(asked)) pieces.push(last.text ?? "");
    return { pieces, finishReason: last.candidates[0].finishReason };
  },

  async tools() {
    const chat = client.chats.create({ model, config: { tools: [{ functionDeclarations: [readNote] }] } });
    const first = await chat.sendMessage({ message: asked.contents });
    const called = first.functionCalls.map(({ args }) => args.name);
    const results = first.functionCalls.map(({ id, name }) => ({
      functionResponse: { id, name, response: { result: `The note says: ${fruit}.` } },
    }));
    const last = await chat.sendMessage({ message: results });
    return { text: last.text, called };
  },

  async countTokens() {
    return { tokens: (await client.models.countTokens(asked)).totalTokens };
  },

  async models() {
    const names = [];
    for await (const listed of await client.models.list()) names.push(listed.name);
    return { names };
  },
};

let outcome;
try {
  outcome = await scenarios[process.argv[2]]();
} catch (error) {
  if (!(error instanceof ApiError)) throw error;
  outcome = { error: { status: error.status, message: error.message } };
}
console.log(JSON.stringify(outcome));
