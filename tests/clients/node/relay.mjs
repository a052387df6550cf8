// Runs one scenario with the official SDK and prints what came of it as JSON. The tests decide what it should be.
//
//   OPENAI_BASE_URL=… OPENAI_API_KEY=… node relay.mjs embeddings|moderation|image|edit|speech|transcription [size]

import { createHash, randomBytes } from "node:crypto";
import process from "node:process";
import OpenAI, { toFile } from "openai";

const [scenario, size = "1000"] = process.argv.slice(2);
const { OPENAI_BASE_URL: baseURL, OPENAI_API_KEY: apiKey } = process.env;
if (!baseURL || !apiKey) throw new Error("OPENAI_BASE_URL and OPENAI_API_KEY are needed");
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 20_000 });

const digest = (bytes) => createHash("sha256").update(bytes).digest("hex");
const content = randomBytes(Number(size));
const file = (name) => toFile(content, name);

const scenarios = {
  async embeddings() {
    const packed = await client.embeddings.create({ model: "small", input: ["one", "two"] });
    const plain = await client.embeddings.create({ model: "small", input: ["one", "two"], encoding_format: "float" });
    return {
      same: packed.data.every((row, index) => row.embedding.every((one, at) => one === plain.data[index].embedding[at])),
      dimensions: packed.data.map((row) => row.embedding.length),
      tokens: packed.usage.prompt_tokens,
    };
  },

  async moderation() {
    const judged = await client.moderations.create({ input: ["love", "kill"] });
    return { flagged: judged.results.map((result) => result.flagged) };
  },

  async image() {
    const made = await client.images.generate({ model: "gpt-image-1", prompt: "stripes", size: "1024x1024" });
    return { sha256: digest(Buffer.from(made.data[0].b64_json, "base64")) };
  },

  async edit() {
    const image = [await file("a.png"), await file("b.png")];
    const made = await client.images.edit({ model: "gpt-image-1", image, prompt: "a hat" });
    return { images: made.data.length, sha256: digest(content) };
  },

  async speech() {
    const spoken = await client.audio.speech.create({ model: "gpt-4o-mini-tts", voice: "alloy", input: "hello ".repeat(99) });
    return { type: spoken.headers.get("content-type"), sha256: digest(Buffer.from(await spoken.arrayBuffer())) };
  },

  async transcription() {
    const heard = await client.audio.transcriptions.create({ file: await file("talk.wav"), model: "whisper-1" });
    const stream = await client.audio.transcriptions.create({
      file: await file("talk.wav"),
      model: "whisper-1",
      stream: true,
    });
    const events = [];
    for await (const event of stream) events.push(event.type);
    return { text: heard.text, events, sha256: digest(content) };
  },
};

console.log(JSON.stringify(await scenarios[scenario]()));
