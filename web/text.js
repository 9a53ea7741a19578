// Model text on the page. Everything the model wrote becomes text nodes: no markup is ever parsed
// as HTML. Code fences become <pre><code>. The cost of an append does not depend on what is there.

export class TextView {
  constructor(parent) {
    this.parent = parent;
    this.node = null;       // text node that grows
    this.inCode = false;
    this.line = '';         // beginning of a line that may yet become a fence
    this.lineIsPlain = false;
    this.gap = '';          // line ends that are shown only if text follows in the same block
  }

  append(text) {
    let at = 0;
    while (at < text.length) {
      const end = text.indexOf('\n', at);
      if (end < 0) {
        this.#partOfLine(text.slice(at));
        return;
      }
      this.#partOfLine(text.slice(at, end));
      this.#endOfLine();
      at = end + 1;
    }
  }

  // The text ends: nothing is held back any longer.
  finish() {
    if (this.line && !isFence(this.line)) this.#write(this.line);
    this.line = '';
  }

  #partOfLine(part) {
    if (this.lineIsPlain) {
      this.#write(part);
      return;
    }
    this.line += part;
    if (mayBecomeFence(this.line)) return;
    this.lineIsPlain = true;
    this.#write(this.line);
    this.line = '';
  }

  #endOfLine() {
    if (!this.lineIsPlain && isFence(this.line)) {
      this.inCode = !this.inCode;
      this.node = null;
      this.gap = '';
    } else {
      this.#write(this.line);
      this.gap += '\n';
    }
    this.line = '';
    this.lineIsPlain = false;
  }

  #write(text) {
    if (!text) return;
    if (!this.node) this.#openBlock();
    else if (this.gap) this.node.appendData(this.gap);
    this.gap = '';
    this.node.appendData(text);
  }

  #openBlock() {
    this.node = document.createTextNode('');
    const block = document.createElement(this.inCode ? 'pre' : 'div');
    if (this.inCode) {
      const code = document.createElement('code');
      code.append(this.node);
      block.append(code);
      block.tabIndex = 0;  // wide code is scrolled with the keyboard
    } else {
      block.className = 'text';
      block.append(this.node);
    }
    this.parent.append(block);
  }
}

function isFence(line) {
  return /^ {0,3}```[^`]*$/.test(line);
}

function mayBecomeFence(line) {
  return /^ {0,3}`{0,2}$/.test(line) || isFence(line);
}

// Words, or characters where words are not set apart.
export function countWords(text, language) {
  if (language === 'en') return text.split(/\s+/).filter(Boolean).length;
  return [...text.replace(/\s+/g, '')].length;
}

// Splits server-sent events out of decoded text: feed() returns the data of complete events.
// `lastId` is the number of the last of them; comments go to `onComment`.
export class EventReader {
  constructor(onComment = () => {}) {
    this.onComment = onComment;
    this.lastId = 0;
    this.restart();
  }

  // A new connection: what was left of the one before is not continued.
  restart() {
    this.buffer = '';
  }

  feed(text) {
    this.buffer += text;
    const parts = this.buffer.split(/\r?\n\r?\n/);
    this.buffer = parts.pop();
    const out = [];
    for (const part of parts) {
      const lines = [];
      for (const line of part.split(/\r?\n/)) {
        if (line.startsWith('data:')) lines.push(line.slice(5).replace(/^ /, ''));
        else if (line.startsWith('id:')) this.lastId = Number(line.slice(3));
        else if (line.startsWith(':')) this.onComment(line.slice(1).replace(/^ /, ''));
      }
      if (lines.length) out.push(lines.join('\n'));
    }
    return out;
  }
}
