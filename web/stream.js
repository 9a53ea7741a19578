// One streamed answer, over as many connections as it takes: the server numbers the events and goes
// on while nobody reads, so that a lost connection loses nothing.

import { EventReader } from './text.js';

// The server waits a minute for a client that comes back.
const PATIENCE_MS = 60_000;
const FIRST_WAIT_MS = 250;

// What the server said instead of an answer, or in it.
export class ServerError extends Error {
  constructor(error) {
    super(error.message);
    this.code = error.code;
  }
}

// No answer came, or no end of it.
export class ConnectionLost extends Error {
  constructor(begun) {
    super('connection lost');
    this.begun = begun;
  }
}

const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

export class AnswerStream {
  // `onProgress` gets {queue_position} or {prefilled_tokens, prompt_tokens}.
  constructor(headers, onProgress = () => {}, fetcher = fetch, wait = sleep) {
    this.headers = headers;
    this.fetcher = fetcher;
    this.wait = wait;
    this.id = null;
    this.complete = false;
    this.events = new EventReader((comment) => {
      if (comment.startsWith('progress ')) onProgress(JSON.parse(comment.slice(9)));
    });
  }

  // The chunks of the answer to `body`. Throws ServerError, ConnectionLost and what `signal` throws.
  async* chunks(body, signal) {
    let response = await this.#ask('/v1/chat/completions', {
      method: 'POST', body: JSON.stringify({ ...body, stream: true, resumable: true }), signal });
    this.id = response.headers.get('x-strata-stream-id');
    while (response) {
      yield* this.#read(response, signal);
      response = this.complete ? null : await this.#comeBack(signal);
    }
  }

  // Ends the reasoning; the answer comes in the same stream.
  answerNow() {
    return this.#ask(`/v1/chat/completions/${this.id}/answer_now`, { method: 'POST' });
  }

  // Nobody will come back: the server need not go on.
  cancel() {
    if (!this.id || this.complete) return;
    this.complete = true;
    this.#ask(`/v1/streams/${this.id}`, { method: 'DELETE', keepalive: true }).catch(() => {});
  }

  async #ask(path, options) {
    const { fetcher } = this;
    let response;
    try {
      response = await fetcher(path, { headers: this.headers, ...options });
    } catch (failure) {
      throw failure.name === 'AbortError' ? failure : new ConnectionLost(this.id !== null);
    }
    if (response.ok) return response;
    const problem = await response.json().catch(() => null);
    throw new ServerError(problem?.error ?? { message: `HTTP ${response.status}` });
  }

  // Until the connection ends, however it does.
  async* #read(response, signal) {
    const reader = response.body.getReader();
    const decoder = new TextDecoder();  // keeps split characters until they are whole
    this.events.restart();
    while (!this.complete) {
      const { value, done } = await reader.read().catch((failure) => {
        if (failure.name === 'AbortError' || signal?.aborted) throw failure;
        return { done: true };
      });
      if (done) return;
      for (const data of this.events.feed(decoder.decode(value, { stream: true }))) {
        if (data === '[DONE]') {
          this.complete = true;
          continue;
        }
        const chunk = JSON.parse(data);
        if (chunk.error) {
          this.complete = true;
          throw new ServerError(chunk.error);
        }
        yield chunk;
      }
    }
  }

  async #comeBack(signal) {
    if (!this.id) throw new ConnectionLost(true);
    const path = `/v1/streams/${this.id}?from=${this.events.lastId + 1}`;
    for (let waited = 0, pause = FIRST_WAIT_MS; waited < PATIENCE_MS; pause *= 2) {
      await this.wait(pause);
      waited += pause;
      signal?.throwIfAborted();
      try {
        return await this.#ask(path, { signal });
      } catch (failure) {
        if (failure instanceof ServerError) throw new ConnectionLost(true);
        if (!(failure instanceof ConnectionLost)) throw failure;
      }
    }
    throw new ConnectionLost(true);
  }
}
