// Runs one scenario with Anthropic's SDK and prints what came of it as JSON.
//
//   ANTHROPIC_BASE_URL=… ANTHROPIC_API_KEY=… FRUIT=… node anthropic.mjs SCENARIO

import process from "node:process";
import Anthropic from "@anthropic-ai/sdk";
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod";
import { z } from "zod";

const { ANTHROPIC_BASE_URL: baseURL, ANTHROPIC_API_KEY: apiKey, FRUIT: fruit } = process.env;
if (!baseURL || !apiKey) throw new Error("ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY are needed");
const client = new Anthropic({ baseURL, apiKey, maxRetries: 0, timeout: 20_000 });
const asked = {
  model: "kimi-k2-instruct-0905",
  max_tokens: 1000,
  messages: [{ role: "user", content: "Which fruit is in the note?" }],
};

const called = [];
const readNote = betaZodTool({
  name: "read_note",
  description: "Reads a note.",
  inputSchema: z.object({ name: z.string() }),
  run: ({ name }) => {
    called.push(name);
    return `The note says: ${fruit}.`;
  },
});
const textOf = (message) =>
  message.content
    .filter((block) => block.type === "text")
    .map((block) => block.text)
    .join("");

const scenarios = {
  async plain() {
    const message = await client.messages.create(asked);
    return { text: textOf(message), stopReason: message.stop_reason, usage: message.usage, requestId: message._request_id };
  },

  async stream() {
    const stream = client.messages.stream(asked);
    const pieces = [];
    stream.on("text", (piece) => pieces.push(piece));
    const message = await stream.finalMessage();
    return { pieces, text: textOf(message), stopReason: message.stop_reason };
  },

  async tools() {
    const message = await client.beta.messages.toolRunner({ ...asked, tools: [readNote] });
    return { text: textOf(message), called, stopReason: message.stop_reason };
  },

  async streamedTools() {
    const reasons = [];
    let message;
    for await (const stream of client.beta.messages.toolRunner({ ...asked, tools: [readNote], stream: true })) {
      message = await stream.finalMessage();
      reasons.push(message.stop_reason);
    }
    return { text: textOf(message), called, reasons };
  },

  async countTokens() {
    const { max_tokens: _, ...counted } = asked;
    return { tokens: (await client.messages.countTokens(counted)).input_tokens };
  },

  async models() {
    const ids = [];
    for await (const listed of client.models.list()) ids.push(listed.id);
    return { ids };
  },
};

let outcome;
try {
  outcome = await scenarios[process.argv[2]]();
} catch (error) {
  if (!(error instanceof Anthropic.APIError)) throw error;
  outcome = { error: { class: error.constructor.name, status: error.status, type: error.type, requestId: error.requestID } };
}
console.log(JSON.stringify(outcome));
