// The chat page: settings, conversation, streaming. State lives in this browser only.

import { MESSAGES, chooseLanguage, format } from './messages.js';
import { AnswerStream, ConnectionLost, ServerError } from './stream.js';
import { TextView, countWords } from './text.js';

const byId = (id) => document.getElementById(id);
const log = byId('log');
const input = byId('input');
const SETTINGS = ['effort', 'temperature', 'max-tokens', 'api-key', 'language', 'theme', 'system'];
const SETTINGS_KEY = 'strata.settings';
const CHAT_KEY = 'strata.chat';

let language = 'en';
let chat = load(CHAT_KEY, []);  // [{role, content, reasoning?, tools?, stats?}]
let running = null;             // AbortController of the answer under way
let maxContext = 0;

// ---- Storage and languages.

function load(key, fallback) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? fallback;
  } catch {
    return fallback;
  }
}

function save(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // Storage is full or forbidden: the page works, it only forgets.
  }
}

const text = (key, values) => format(language, key, values);

function number(value, digits = 0) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);
}

function applyLanguage() {
  document.documentElement.lang = language;
  for (const node of document.querySelectorAll('[data-text]'))
    node.textContent = text(node.dataset.text);
  for (const node of document.querySelectorAll('[data-label]'))
    node.setAttribute('aria-label', text(node.dataset.label));
  for (const node of document.querySelectorAll('[data-placeholder]'))
    node.placeholder = text(node.dataset.placeholder);
}

function readSettings() {
  const stored = load(SETTINGS_KEY, {});
  for (const id of SETTINGS) if (typeof stored[id] === 'string') byId(id).value = stored[id];
  if (!MESSAGES[stored.language]) byId('language').value = chooseLanguage(navigator.languages);
  applySettings();
}

function applySettings() {
  language = byId('language').value;
  document.documentElement.dataset.theme = byId('theme').value;
  applyLanguage();
  const stored = {};
  for (const id of SETTINGS) stored[id] = byId(id).value;
  save(SETTINGS_KEY, stored);
}

// ---- Drawing.

function element(tag, className, content) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (content !== undefined) node.textContent = content;
  return node;
}

function nearEnd() {
  const page = document.scrollingElement;
  return page.scrollHeight - page.scrollTop - page.clientHeight < 80;
}

function scrollToEnd() {
  document.scrollingElement.scrollTop = document.scrollingElement.scrollHeight;
}

function addMessage(role) {
  const message = element('article', `message ${role}`);
  message.append(element('h2', '', text(role === 'user' ? 'you' : 'assistant')));
  log.append(message);
  byId('empty').hidden = true;
  return message;
}

function drawUser(content) {
  const body = element('div', 'body');
  const view = new TextView(body);
  view.append(content);
  view.finish();
  addMessage('user').append(body);
}

// The parts of an answer, made when they are first needed.
class AnswerView {
  constructor() {
    this.message = addMessage('assistant');
    this.message.setAttribute('aria-busy', 'true');
    this.thoughts = element('details', 'reasoning');
    this.thoughts.hidden = true;
    this.summary = element('summary');
    this.progress = element('p', 'progress');
    this.now = element('button', 'small', text('answerNow'));
    this.now.type = 'button';
    this.now.hidden = true;
    const thoughtBody = element('div', 'body');
    this.thoughts.append(this.summary, thoughtBody);
    this.body = element('div', 'body');
    this.foot = element('footer');
    this.message.append(this.progress, this.thoughts, this.now, this.body, this.foot);
    this.reasoning = new TextView(thoughtBody);
    this.content = new TextView(this.body);
    this.tools = [];
  }

  // Where the request stands before its first token.
  showProgress({ queue_position: position, prefilled_tokens: done, prompt_tokens: all }) {
    this.progress.textContent = position === undefined
      ? text('reading', { done: number(done), all: number(all) })
      : text('queued', { position: number(position + 1) });
  }

  showThinking(seconds, done) {
    this.progress.remove();
    this.thoughts.hidden = false;
    this.now.hidden = done;
    this.summary.textContent = text(done ? 'thought' : 'thinking', { seconds: number(seconds, 1) });
  }

  addTool(name) {
    const block = element('details', 'tool');
    block.open = true;
    const code = element('pre');
    block.append(element('summary', '', text('toolCall', { name })), code);
    this.body.append(block);
    this.tools.push(code);
  }

  finish(answer, isLast) {
    this.progress.remove();
    this.now.remove();
    this.reasoning.finish();
    this.content.finish();
    this.message.removeAttribute('aria-busy');
    if (answer.seconds !== undefined) this.showThinking(answer.seconds, true);
    this.foot.replaceChildren(element('span', 'stats', statsLine(answer)));
    const copy = element('button', 'small', text('copy'));
    copy.type = 'button';
    copy.onclick = async () => {
      await navigator.clipboard.writeText(answer.content);
      copy.textContent = text('copied');
    };
    this.foot.append(copy);
    if (!isLast) return;
    const retry = element('button', 'small retry', text('retry'));
    retry.type = 'button';
    retry.onclick = tryAgain;
    this.foot.append(retry);
  }

  fail(problem) {
    const box = element('div', 'error');
    box.setAttribute('role', 'alert');
    box.append(element('strong', '', text('errorTitle')), element('p', '', problem));
    this.message.insertBefore(box, this.foot);
  }
}

function statsLine(answer) {
  const parts = [];
  const { usage, metrics } = answer.stats ?? {};
  if (metrics?.tokens_per_second)
    parts.push(text('speed', { value: number(metrics.tokens_per_second, 1) }));
  if (metrics?.time_to_first_token_ms)
    parts.push(text('firstToken', { value: number(metrics.time_to_first_token_ms) }));
  if (usage) {
    parts.push(text('tokens', {
      prompt: number(usage.prompt_tokens), answer: number(usage.completion_tokens) }));
    const reasoning = usage.completion_tokens_details?.reasoning_tokens;
    const cached = usage.prompt_tokens_details?.cached_tokens;
    if (reasoning) parts.push(text('reasoningTokens', { value: number(reasoning) }));
    if (cached) parts.push(text('cachedTokens', { value: number(cached) }));
  }
  const reasons = {
    stop: 'finishStop', length: 'finishLength', tool_calls: 'finishToolCalls',
    content_filter: 'finishContentFilter', stopped: 'finishStopped',
  };
  if (reasons[answer.finish]) parts.push(text(reasons[answer.finish]));
  return parts.join(' · ');
}

function drawAnswer(answer, isLast) {
  const view = new AnswerView();
  if (answer.reasoning) view.reasoning.append(answer.reasoning);
  view.content.append(answer.content);
  for (const tool of answer.tools ?? []) {
    view.addTool(tool.name);
    view.tools.at(-1).textContent = tool.arguments;
  }
  if (answer.error) view.fail(answer.error);
  view.finish(answer, isLast);
}

function drawChat() {
  log.replaceChildren();
  byId('empty').hidden = chat.length > 0;
  chat.forEach((entry, i) => {
    if (entry.role === 'user') drawUser(entry.content);
    else drawAnswer(entry, i === chat.length - 1);
  });
  drawMeter();
  scrollToEnd();
}

function drawMeter() {
  const usage = chat.findLast((entry) => entry.stats?.usage)?.stats.usage;
  const used = usage?.total_tokens ?? 0;
  byId('meter').hidden = !maxContext;
  if (!maxContext) return;
  byId('meter-bar').value = used / maxContext;
  byId('meter').classList.toggle('full', used / maxContext > 0.8);
  byId('meter-text').textContent =
    text('contextUsed', { used: number(used), max: number(maxContext) });
}

const announce = (message) => { byId('status').textContent = message; };

// ---- Talking to the server.

function headers() {
  const out = { 'Content-Type': 'application/json' };
  const key = byId('api-key').value.trim();
  if (key) out.Authorization = `Bearer ${key}`;
  return out;
}

function requestBody() {
  const messages = [];
  const system = byId('system').value.trim();
  if (system) messages.push({ role: 'system', content: system });
  for (const { role, content } of chat) if (content) messages.push({ role, content });
  const body = {
    messages, stream_options: { include_usage: true, include_progress: true },
    reasoning_effort: byId('effort').value,
  };
  const temperature = Number.parseFloat(byId('temperature').value);
  if (temperature >= 0 && temperature <= 2) body.temperature = temperature;
  const longest = Number.parseInt(byId('max-tokens').value, 10);
  if (longest > 0) body.max_completion_tokens = longest;
  return body;
}

function explain(failure) {
  const known = {
    invalid_api_key: 'errorKey', context_length_exceeded: 'errorContext', server_busy: 'errorBusy',
    queue_full: 'errorBusy', rate_limit_exceeded: 'errorBusy', loading: 'errorLoading',
    draining: 'errorDraining', shutting_down: 'errorDraining',
  };
  if (failure instanceof ConnectionLost) return text(failure.begun ? 'errorCut' : 'errorNetwork');
  if (failure instanceof ServerError && known[failure.code]) return text(known[failure.code]);
  return failure.message;
}

// Collects an answer and draws it once a frame.
class Answer {
  constructor() {
    this.view = new AnswerView();
    this.entry = { role: 'assistant', content: '', reasoning: '', tools: [] };
    this.pending = { reasoning: '', content: '' };
    this.frame = 0;
    this.thinkingSince = 0;
  }

  add(chunk) {
    if (chunk.usage) this.entry.stats = { usage: chunk.usage, metrics: chunk.metrics };
    const choice = chunk.choices?.[0];
    if (!choice) return;
    const { delta } = choice;
    if (delta.content || delta.tool_calls) this.view.progress.remove();
    const thought = delta.reasoning ?? '';
    if (thought && !this.thinkingSince) this.thinkingSince = performance.now();
    this.entry.reasoning += thought;
    this.pending.reasoning += thought;
    if (delta.content) this.endThinking();
    this.entry.content += delta.content ?? '';
    this.pending.content += delta.content ?? '';
    for (const call of delta.tool_calls ?? []) this.addTool(call);
    if (choice.finish_reason) this.entry.finish = choice.finish_reason;
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  addTool(call) {
    this.endThinking();
    if (call.function.name) {
      this.entry.tools.push({ name: call.function.name, arguments: '' });
      this.view.addTool(call.function.name);
    }
    const tool = this.entry.tools.at(-1);
    tool.arguments += call.function.arguments ?? '';
    this.view.tools.at(-1).textContent = tool.arguments;
  }

  endThinking() {
    if (this.thinkingSince && this.entry.seconds === undefined)
      this.entry.seconds = (performance.now() - this.thinkingSince) / 1000;
  }

  draw() {
    this.frame = 0;
    const follow = nearEnd();
    this.view.reasoning.append(this.pending.reasoning);
    this.view.content.append(this.pending.content);
    this.pending = { reasoning: '', content: '' };
    if (this.thinkingSince) {
      const seconds = this.entry.seconds ?? (performance.now() - this.thinkingSince) / 1000;
      this.view.showThinking(seconds, this.entry.seconds !== undefined);
    }
    if (follow) scrollToEnd();
  }

  finish() {
    cancelAnimationFrame(this.frame);
    this.endThinking();
    this.draw();
    this.view.finish(this.entry, true);
  }
}

async function answerChat() {
  for (const button of document.querySelectorAll('.retry')) button.remove();
  running = new AbortController();
  showRunning();
  announce(text('answering'));
  const answer = new Answer();
  const asked = chat;  // a new chat may begin before the answer ends
  const stream = new AnswerStream(headers(), (progress) => answer.view.showProgress(progress));
  answer.view.now.onclick = () => {
    answer.view.now.disabled = true;
    stream.answerNow().catch(() => { answer.view.now.disabled = false; });
  };
  const leave = () => stream.cancel();
  addEventListener('pagehide', leave);
  scrollToEnd();
  try {
    for await (const chunk of stream.chunks(requestBody(), running.signal)) answer.add(chunk);
    announce(text('answered', { words: number(countWords(answer.entry.content, language)) }));
  } catch (failure) {
    if (failure.name === 'AbortError') {
      stream.cancel();
      answer.entry.finish = 'stopped';
      announce(text('stopped'));
    } else {
      answer.entry.error = explain(failure);
      answer.view.fail(answer.entry.error);
    }
  }
  removeEventListener('pagehide', leave);
  answer.finish();
  asked.push(answer.entry);
  if (asked === chat) save(CHAT_KEY, chat);
  running = null;
  showRunning();
  drawMeter();
}

function tryAgain() {
  if (running || chat.at(-1)?.role !== 'assistant') return;
  chat.pop();
  log.lastElementChild.remove();
  answerChat();
}

async function loadModel() {
  try {
    const response = await fetch('/v1/models', { headers: headers() });
    const model = (await response.json()).data[0];
    byId('model').textContent = model.id;
    maxContext = model.max_model_len ?? 0;
  } catch {
    byId('model').textContent = '';
  }
  drawMeter();
}

// ---- Controls.

function showRunning() {
  byId('send').hidden = running !== null;
  byId('stop').hidden = running === null;
}

function fitInput() {
  input.style.height = 'auto';
  input.style.height = `${Math.min(input.scrollHeight, 240)}px`;
}

function send() {
  const content = input.value.trim();
  if (!content || running) return;
  input.value = '';
  fitInput();
  chat.push({ role: 'user', content });
  save(CHAT_KEY, chat);
  drawUser(content);
  answerChat();
  input.focus();
}

function newChat() {
  running?.abort();
  chat = [];
  save(CHAT_KEY, chat);
  drawChat();
  input.focus();
}

function toggleSettings() {
  const panel = byId('settings');
  panel.hidden = !panel.hidden;
  byId('open-settings').setAttribute('aria-expanded', String(!panel.hidden));
  if (!panel.hidden) byId('effort').focus();
}

byId('form').onsubmit = (event) => { event.preventDefault(); send(); };
byId('stop').onclick = () => { running?.abort(); input.focus(); };
byId('new-chat').onclick = newChat;
byId('open-settings').onclick = toggleSettings;
byId('reset').onclick = () => {
  for (const id of ['temperature', 'max-tokens', 'system']) byId(id).value = '';
  byId('effort').value = 'medium';
  byId('theme').value = 'auto';
  applySettings();
};
for (const id of SETTINGS)
  byId(id).addEventListener('change', () => {
    applySettings();
    if (id === 'language') drawChat();
    if (id === 'api-key') loadModel();
  });
input.oninput = fitInput;
input.onkeydown = (event) => {
  // Enter that ends a composition belongs to the input method; Safari reports it as key 229.
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  send();
};
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') running?.abort();
  const command = event.ctrlKey || event.metaKey;
  if (command && event.shiftKey && event.key.toLowerCase() === 'o') {
    event.preventDefault();
    newChat();
  }
});

readSettings();
drawChat();
loadModel();
