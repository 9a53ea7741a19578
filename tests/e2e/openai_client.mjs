// The official OpenAI client against a running server: lists models, chats, streams, completes,
// calls a tool and sees errors as its own classes. Exits with 1 at the first thing that is wrong.
//
//   node openai_client.mjs http://127.0.0.1:8000/v1 [API_KEY] [--tools]
//
// --tools: the server answers any chat that offers `get_weather` with a call of it.
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const [baseURL, ...rest] = process.argv.slice(2);
const options = rest.filter((argument) => argument.startsWith('--'));
const apiKey = rest.find((argument) => !argument.startsWith('--')) ?? 'any-key';
if (!baseURL) {
  console.error('usage: openai_client.mjs BASE_URL [API_KEY] [--tools]');
  process.exit(2);
}
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 120_000 });
const messages = [{ role: 'user', content: 'Say hello.' }];
const limit = { max_completion_tokens: 64, temperature: 0, seed: 7 };

async function listModels() {
  const models = [];
  for await (const model of client.models.list()) models.push(model);
  assert.ok(models.length >= 1, 'no model is listed');
  assert.equal(models[0].object, 'model');
  assert.equal((await client.models.retrieve(models[0].id)).id, models[0].id);
  return models[0].id;
}

function checkUsage(usage) {
  assert.ok(usage.prompt_tokens > 0 && usage.completion_tokens > 0, 'usage is empty');
  assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
}

async function chat(model) {
  const answer = await client.chat.completions.create({ model, messages, ...limit });
  assert.equal(answer.object, 'chat.completion');
  assert.equal(answer.choices[0].message.role, 'assistant');
  assert.ok(['stop', 'length'].includes(answer.choices[0].finish_reason));
  assert.ok(answer._request_id, 'the answer has no request id');
  checkUsage(answer.usage);
  return answer;
}

async function stream(model, whole) {
  const chunks = await client.chat.completions.create({
    model, messages, ...limit, stream: true, stream_options: { include_usage: true } });
  let content = '';
  let reasoning = '';
  let finish = null;
  let usage = null;
  for await (const chunk of chunks) {
    assert.equal(chunk.object, 'chat.completion.chunk');
    usage = chunk.usage ?? usage;
    const choice = chunk.choices[0];
    if (!choice) continue;
    const delta = choice.delta;
    assert.ok(!(delta.content ?? '').includes('\ufffd'), 'a delta is cut inside a character');
    content += delta.content ?? '';
    reasoning += delta.reasoning ?? '';
    assert.equal(delta.reasoning, delta.reasoning_content);
    finish = choice.finish_reason ?? finish;
  }
  assert.ok(finish, 'the stream has no finish reason');
  checkUsage(usage);
  const { message } = whole.choices[0];
  assert.equal(content, message.content ?? '', 'stream and whole answer differ');
  assert.equal(reasoning, message.reasoning ?? '', 'their reasoning differs');
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
}

async function streamHelper(model) {
  const runner = client.chat.completions.stream({ model, messages, ...limit });
  const final = await runner.finalChatCompletion();
  assert.ok(final.choices[0].finish_reason);
}

async function abortStream(model) {
  const chunks = await client.chat.completions.create({ model, messages, stream: true });
  for await (const chunk of chunks) {
    assert.ok(chunk.id);
    break;  // the client closes the connection
  }
}

async function complete(model) {
  const answer = await client.completions.create({
    model, prompt: 'The sky is', max_tokens: 8, temperature: 0, logprobs: 1, echo: true });
  assert.equal(answer.object, 'text_completion');
  assert.ok(answer.choices[0].text.startsWith('The sky is'));
  assert.equal(answer.choices[0].logprobs.tokens.length,
    answer.choices[0].logprobs.token_logprobs.length);
  checkUsage(answer.usage);
}

async function errors(model) {
  await assert.rejects(
    client.chat.completions.create({ model, messages, n: 1000 }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === 'n' &&
      error.type === 'invalid_request_error');
  await assert.rejects(
    client.chat.completions.create({ model, messages: [] }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === 'messages');
  await assert.rejects(client.models.retrieve('no-such-model'),
    (error) => error instanceof OpenAI.NotFoundError && error.code === 'model_not_found');
  await assert.rejects(client.get('/no/such/route'), OpenAI.NotFoundError);
}

async function tools(model) {
  const request = {
    model, messages, ...limit,
    tools: [{ type: 'function', function: { name: 'get_weather', description: 'Weather now.',
      parameters: { type: 'object', properties: { city: { type: 'string' } } } } }] };
  const answer = await client.chat.completions.create(request);
  const [call] = answer.choices[0].message.tool_calls;
  assert.equal(answer.choices[0].finish_reason, 'tool_calls');
  assert.equal(call.function.name, 'get_weather');
  const streamed = await client.chat.completions.stream(request).finalChatCompletion();
  const [again] = streamed.choices[0].message.tool_calls;
  assert.equal(again.function.arguments, call.function.arguments);
  // The result goes back with the assistant's own message, as clients do.
  await client.chat.completions.create({ ...request, messages: [...messages,
    answer.choices[0].message, { role: 'tool', tool_call_id: call.id, content: '{"c":21}' }] });
}

async function step(name, run) {
  try {
    const result = await run();
    console.log(`ok: ${name}`);
    return result;
  } catch (failure) {
    console.error(`FAILED: ${name}: ${failure.stack ?? failure}`);
    process.exit(1);
  }
}

const model = await step('list models', listModels);
if (options.includes('--tools')) {
  await step('tools', () => tools(model));
} else {
  const whole = await step('chat', () => chat(model));
  await step('stream', () => stream(model, whole));
  await step('stream helper', () => streamHelper(model));
  await step('abort a stream', () => abortStream(model));
  await step('completions', () => complete(model));
  await step('errors', () => errors(model));
}
