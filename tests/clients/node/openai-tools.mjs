// Tools, typed answers and the other endpoints with OpenAI's SDK. Prints what came of one scenario as JSON.
//
//   OPENAI_BASE_URL=… OPENAI_API_KEY=… FRUIT=… node openai-tools.mjs SCENARIO

import process from "node:process";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const { OPENAI_BASE_URL: baseURL, OPENAI_API_KEY: apiKey, FRUIT: fruit } = process.env;
if (!baseURL || !apiKey) throw new Error("OPENAI_BASE_URL and OPENAI_API_KEY are needed");
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 20_000 });
const model = "kimi-k2-instruct-0905";

const question = "Which fruit is in the note?";
const messages = [{ role: "user", content: question }];
const Fruit = z.object({ fruit: z.string(), grams: z.number() });
const parameters = {
  type: "object",
  properties: { name: { type: "string", description: "The note's name" } },
  required: ["name"],
  additionalProperties: false,
};

const called = [];
const readNote = ({ name }) => {
  called.push(name);
  return `The note says: ${fruit}.`;
};
const chatTool = {
  type: "function",
  function: { name: "read_note", description: "Reads a note.", parameters, parse: JSON.parse, function: readNote },
};
const responsesTool = { type: "function", name: "read_note", description: "Reads a note.", parameters, strict: true };
const resultsOf = (response) =>
  response.output
    .filter((item) => item.type === "function_call")
    .map((item) => ({
      type: "function_call_output",
      call_id: item.call_id,
      output: readNote(JSON.parse(item.arguments)),
    }));

const scenarios = {
  async tools() {
    const runner = client.chat.completions.runTools({ model, messages, tools: [chatTool] });
    return { text: await runner.finalContent(), called };
  },

  async streamedTools() {
    const runner = client.chat.completions.runTools({ model, messages, tools: [chatTool], stream: true });
    return { text: await runner.finalContent(), called };
  },

  async parse() {
    const completion = await client.chat.completions.parse({
      model,
      messages,
      response_format: zodResponseFormat(Fruit, "fruit"),
    });
    return completion.choices[0].message.parsed;
  },

  async responses() {
    const first = await client.responses.create({ model, input: question, tools: [responsesTool] });
    const second = await client.responses.create({
      model,
      previous_response_id: first.id,
      input: resultsOf(first),
      tools: [responsesTool],
    });
    return { text: second.output_text, called };
  },

  async streamedResponses() {
    const input = [{ role: "user", content: question }];
    const events = [];
    const ask = async () => {
      const stream = client.responses.stream({ model, input, tools: [responsesTool], store: false });
      for await (const event of stream) events.push(event.type);
      return stream.finalResponse();
    };
    const first = await ask();
    input.push(...first.output, ...resultsOf(first));
    return { text: (await ask()).output_text, called, events: [...new Set(events)] };
  },

  async parsedResponse() {
    const text = { format: zodTextFormat(Fruit, "fruit") };
    return (await client.responses.parse({ model, input: question, text })).output_parsed;
  },

  async completions() {
    const whole = await client.completions.create({ model, prompt: "Once upon a time" });
    const pieces = [];
    const stream = await client.completions.create({ model, prompt: "Once upon a time", stream: true });
    for await (const chunk of stream) pieces.push(chunk.choices[0]?.text ?? "");
    return { whole: whole.choices[0].text, pieces };
  },
};

console.log(JSON.stringify(await scenarios[process.argv[2]]()));
