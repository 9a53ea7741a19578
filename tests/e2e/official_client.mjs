// The official OpenAI client against a running server: `node official_client.mjs BASE_URL`.
// The server serves a scripted model named "scripted" whose every answer is "Hello there!", after
// the reasoning "The user greets.", with the key "secret".
import assert from "node:assert/strict";
import OpenAI from "openai";

const baseURL = process.argv[2];
const client = new OpenAI({ baseURL, apiKey: "secret", maxRetries: 0 });
const messages = [{ role: "user", content: "hi" }];
const model = "scripted";

const checks = {
  async "lists models"() {
    const ids = [];
    for await (const one of client.models.list()) ids.push(one.id);
    assert.deepEqual(ids, [model]);
    assert.equal((await client.models.retrieve(model)).id, model);
  },

  async "chats"() {
    const answer = await client.chat.completions.create({ model, messages });
    assert.equal(answer.object, "chat.completion");
    assert.equal(answer.choices[0].message.role, "assistant");
    assert.equal(answer.choices[0].message.content, "Hello there!");
    assert.equal(answer.choices[0].finish_reason, "stop");
    const { prompt_tokens, completion_tokens, total_tokens } = answer.usage;
    assert.equal(prompt_tokens + completion_tokens, total_tokens);
  },

  async "streams"() {
    const stream = await client.chat.completions.create({
      model, messages, stream: true, stream_options: { include_usage: true },
    });
    let text = "";
    let finish = null;
    let usage = null;
    const ids = new Set();
    for await (const chunk of stream) {
      ids.add(chunk.id);
      text += chunk.choices[0]?.delta.content ?? "";
      finish = chunk.choices[0]?.finish_reason ?? finish;
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, "Hello there!");
    assert.equal(finish, "stop");
    assert.equal(ids.size, 1);
    assert.equal(usage.prompt_tokens + usage.completion_tokens, usage.total_tokens);
  },

  async "ignores progress and numbers of events"() {
    const stream = await client.chat.completions.create({
      model, messages: [{ role: "user", content: "word ".repeat(1500) }], stream: true,
      stream_options: { include_progress: true }, resumable: true,
    });
    let text = "";
    for await (const chunk of stream) {
      assert.equal(chunk.object, "chat.completion.chunk");
      text += chunk.choices[0]?.delta.content ?? "";
    }
    assert.equal(text, "Hello there!");
  },

  async "streams through its helper"() {
    const runner = client.chat.completions.stream({ model, messages });
    assert.equal(await runner.finalContent(), "Hello there!");
  },

  async "stops a stream"() {
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    for await (const chunk of stream) {
      assert.equal(chunk.object, "chat.completion.chunk");
      stream.controller.abort();
      break;
    }
    const answer = await client.chat.completions.create({ model, messages });
    assert.equal(answer.choices[0].message.content, "Hello there!");
  },

  async "completes text"() {
    const answer = await client.completions.create({ model, prompt: "hi", max_tokens: 3 });
    assert.equal(answer.object, "text_completion");
    assert.equal(answer.usage.completion_tokens, 3);
    assert.equal(answer.choices[0].finish_reason, "length");
  },

  async "gets typed errors"() {
    const wrong = { model, messages, temperature: 99 };
    await assert.rejects(client.chat.completions.create(wrong), OpenAI.BadRequestError);
    const stranger = new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 });
    await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
    await assert.rejects(client.models.retrieve("other"), OpenAI.NotFoundError);
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
  } catch (error) {
    failed += 1;
    console.log(`${name}: ${error.stack}`);
  }
}
process.exit(failed === 0 ? 0 : 1);
