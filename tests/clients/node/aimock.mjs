// An OpenAI-compatible mock server that nobody here wrote, on a free port; prints its address and runs until it is killed.
import { LLMock } from "@copilotkit/aimock";

const mock = new LLMock({ port: 0, host: "127.0.0.1", chunkSize: 3 });
const usage = { prompt_tokens: 11, completion_tokens: 7, total_tokens: 18 };
mock.addFixture({ match: { userMessage: "greet" }, response: { content: "Hello 👩‍👧, 你好, and welcome!", usage } });
mock.addFixture({ match: { userMessage: "think" }, response: { content: "Forty-two.", reasoning: "Let me think." } });
mock.addFixture({ match: { toolCallId: "call_weather" }, response: { content: "It is sunny in Oslo." } });
mock.addFixture({
  match: { userMessage: "weather" },
  response: { toolCalls: [{ id: "call_weather", name: "get_weather", arguments: '{"city":"Oslo"}' }] },
});
mock.addFixture({
  match: { userMessage: "busy" },
  response: { error: { message: "Slow down.", type: "rate_limit_error", code: "rate_limit_exceeded" }, status: 429 },
});
await mock.start();
console.log(mock.url);
