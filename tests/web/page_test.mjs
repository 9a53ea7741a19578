// The parts of the chat page that need no browser: node --test tests/web
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MESSAGES, chooseLanguage, format } from '../../web/messages.js';
import { AnswerStream, ConnectionLost, ServerError } from '../../web/stream.js';
import { EventReader, TextView, countWords } from '../../web/text.js';

// As much of a document as TextView uses.
class Node {
  constructor(tag) { this.tag = tag; this.children = []; }
  append(...nodes) { this.children.push(...nodes); }
  appendData(data) { this.data = (this.data ?? '') + data; }
}
globalThis.document = {
  createElement: (tag) => new Node(tag),
  createTextNode: (data) => Object.assign(new Node('#text'), { data }),
};

// [["text", "..."], ["code", "..."]] of what is shown.
function blocks(root) {
  return root.children.map((block) => block.tag === 'pre'
    ? ['code', block.children[0].children[0].data] : ['text', block.children[0].data]);
}

function show(pieces) {
  const root = new Node('div');
  const view = new TextView(root);
  for (const piece of pieces) view.append(piece);
  view.finish();
  return blocks(root);
}

test('every language has the same texts with the same places', () => {
  const keys = Object.keys(MESSAGES.en);
  for (const [language, table] of Object.entries(MESSAGES)) {
    assert.deepEqual(Object.keys(table), keys, language);
    for (const key of keys)
      assert.deepEqual([...table[key].matchAll(/\{\w+\}/g)].map(String).sort(),
        [...MESSAGES.en[key].matchAll(/\{\w+\}/g)].map(String).sort(), `${language} ${key}`);
  }
});

test('the texts of the page exist', async () => {
  const { readFile } = await import('node:fs/promises');
  const html = await readFile(new URL('../../web/index.html', import.meta.url), 'utf8');
  const script = await readFile(new URL('../../web/app.js', import.meta.url), 'utf8');
  const used = [...html.matchAll(/data-(?:text|label|placeholder)="(\w+)"/g),
    ...script.matchAll(/text\('(\w+)'/g), ...script.matchAll(/'(finish\w+|error\w+)'/g)];
  for (const [, key] of used) assert.ok(key in MESSAGES.en, key);
});

test('the language follows the browser', () => {
  for (const [preferred, language] of [
    [['en-GB'], 'en'], [['zh-TW', 'en'], 'zh-TW'], [['zh-HK'], 'zh-TW'], [['zh-Hant-CN'], 'zh-TW'],
    [['zh'], 'zh-CN'], [['zh-Hans-SG'], 'zh-CN'], [['fr', 'zh-CN'], 'zh-CN'], [['fr'], 'en'],
    [[], 'en']])
    assert.equal(chooseLanguage(preferred), language, preferred.join());
  assert.equal(format('en', 'contextUsed', { used: 1, max: 2 }), '1 of 2 tokens');
});

test('code fences become code, everything else stays text', () => {
  assert.deepEqual(show(['a\n\n```py\nx = 1\n\ny\n```\nb\n']),
    [['text', 'a'], ['code', 'x = 1\n\ny'], ['text', 'b']]);
  assert.deepEqual(show(['<b>`` `inline` ```not a fence``` </b>']),
    [['text', '<b>`` `inline` ```not a fence``` </b>']]);
  assert.deepEqual(show(['```\nopen']), [['code', 'open']]);
  assert.deepEqual(show(['a\n``']), [['text', 'a\n``']]);
});

test('where text is cut never shows', () => {
  const text = 'Hi\n```c++\nint a;  // `x`\n```\n\n``two`` and\n  ```\ncode\n```\nend `';
  const whole = show([text]);
  for (let at = 1; at < text.length; ++at)
    assert.deepEqual(show([text.slice(0, at), text.slice(at)]), whole, `cut at ${at}`);
  assert.deepEqual(show([...text]), whole);
});

test('events are found wherever they are cut', () => {
  const stream = ': keep-alive\n\ndata: {"a":1}\n\ndata: two\ndata: lines\r\n\r\ndata: [DONE]\n\n';
  const expected = ['{"a":1}', 'two\nlines', '[DONE]'];
  for (let at = 0; at <= stream.length; ++at) {
    const reader = new EventReader();
    assert.deepEqual([...reader.feed(stream.slice(0, at)), ...reader.feed(stream.slice(at))],
      expected, `cut at ${at}`);
  }
});

test('numbers and comments of events are told', () => {
  const comments = [];
  const reader = new EventReader((comment) => comments.push(comment));
  assert.deepEqual(reader.feed(': progress {"queue_position":2}\n\nid: 7\ndata: x\n\nid: 8\nda'), ['x']);
  assert.equal(reader.lastId, 7);
  assert.deepEqual(comments, ['progress {"queue_position":2}']);
  reader.restart();
  assert.deepEqual(reader.feed('id: 8\ndata: y\n\n'), ['y']);
  assert.equal(reader.lastId, 8);
});

// A server that answers each request with the next of `answers`: text that is sent before the
// connection breaks, or an object for another outcome.
function serverOf(answers) {
  const asked = [];
  return {
    asked,
    fetcher: async (path, options) => {
      asked.push(`${options.method ?? 'GET'} ${path}`);
      const answer = answers.shift();
      if (answer === 'unreachable') throw new TypeError('network');
      if (answer.status) {
        return { ok: false, status: answer.status, json: async () => ({ error: answer.error }) };
      }
      const pieces = [new TextEncoder().encode(answer)];
      return {
        ok: true,
        headers: new Headers({ 'x-strata-stream-id': 'chatcmpl-1' }),
        body: { getReader: () => ({ read: async () => (pieces.length
          ? { value: pieces.shift(), done: false }
          : Promise.reject(new TypeError('broken'))) }) },
      };
    },
  };
}

const event = (number, word) => `id: ${number}\ndata: {"word":"${word}"}\n\n`;
const END = 'data: [DONE]\n\n';
const noWait = async () => {};

async function wordsOf(stream) {
  const words = [];
  for await (const chunk of stream.chunks({ messages: [] })) words.push(chunk.word);
  return words;
}

test('an answer goes on after lost connections', async () => {
  const server = serverOf([
    event(1, 'one') + event(2, 'two') + 'id: 3\ndata: {"wo', 'unreachable',
    event(3, 'three'), event(4, 'four') + END]);
  const stream = new AnswerStream({}, undefined, server.fetcher, noWait);
  assert.deepEqual(await wordsOf(stream), ['one', 'two', 'three', 'four']);
  assert.deepEqual(server.asked, [
    'POST /v1/chat/completions', 'GET /v1/streams/chatcmpl-1?from=3',
    'GET /v1/streams/chatcmpl-1?from=3', 'GET /v1/streams/chatcmpl-1?from=4']);
});

test('what cannot be resumed is told', async () => {
  const gone = serverOf([event(1, 'one'), { status: 404, error: { code: 'stream_not_found' } }]);
  await assert.rejects(wordsOf(new AnswerStream({}, undefined, gone.fetcher, noWait)),
    (failure) => failure instanceof ConnectionLost && failure.begun);
  const never = serverOf(['unreachable']);
  await assert.rejects(wordsOf(new AnswerStream({}, undefined, never.fetcher, noWait)),
    (failure) => failure instanceof ConnectionLost && !failure.begun);
  const refused = serverOf([{ status: 429, error: { code: 'queue_full', message: 'full' } }]);
  await assert.rejects(wordsOf(new AnswerStream({}, undefined, refused.fetcher, noWait)),
    (failure) => failure instanceof ServerError && failure.code === 'queue_full');
  const failed = serverOf(['id: 1\ndata: {"error":{"message":"no","code":"x"}}\n\n']);
  await assert.rejects(wordsOf(new AnswerStream({}, undefined, failed.fetcher, noWait)),
    (failure) => failure instanceof ServerError && failure.code === 'x');
});

test('progress is passed on, and a stream can be ended', async () => {
  const server = serverOf([': progress {"queue_position":3}\n\n' + event(1, 'one'), '']);
  const seen = [];
  const stream = new AnswerStream({}, (progress) => seen.push(progress), server.fetcher, noWait);
  for await (const chunk of stream.chunks({})) {
    assert.equal(chunk.word, 'one');
    stream.cancel();
    break;
  }
  assert.deepEqual(seen, [{ queue_position: 3 }]);
  assert.equal(server.asked.at(-1), 'DELETE /v1/streams/chatcmpl-1');
});

test('words are counted as people do', () => {
  assert.equal(countWords(' two  words ', 'en'), 2);
  assert.equal(countWords('', 'en'), 0);
  assert.equal(countWords('你好 嗎', 'zh-TW'), 3);
});
