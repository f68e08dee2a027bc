// index.mjs - what a Node function runs in: it loads the handler and serves it. Behaviour towards handlers (context,
// errors, log lines) is that of Lambda's own runtime.
//
// It goes two ways. Started in an instance, it asks the Runtime API over HTTP. Started in the function's zygote
// (TANDEM_ZYGOTE, see runtime/node.c) it warms what a request goes through and forks an instance for each start; those
// speak to the gateway in frames (runtime/zygote.h) over descriptor 3. Between two calls an instance waits in a read, so
// that nothing of it runs then, as in a frozen environment of Lambda's.
import { AsyncLocalStorage } from 'node:async_hooks';
import http from 'node:http';
import Module, { createRequire } from 'node:module';
import fs from 'node:fs';
import path from 'node:path';
import { Writable } from 'node:stream';
import { format, types } from 'node:util';
import v8 from 'node:v8';
import { pathToFileURL } from 'node:url';

let task = process.env.LAMBDA_TASK_ROOT || '/var/task';
let requestId = 'undefined';
const places = Number(process.env.AWS_LAMBDA_MAX_CONCURRENCY) || 1; // calls at once
const calls = places > 1 ? new AsyncLocalStorage() : undefined; // each of them knows its id
const callId = () => calls?.getStore() ?? requestId;

// ---- the Runtime API ------------------------------------------------------------------------------------
// A wire: next() gives {id, trace, arn, client, deadline, body}; answer, fail and initFailed end it; stream() takes an
// answer in pieces.

function apiWire() {
  const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(':');
  const agent = new http.Agent({ keepAlive: true, maxSockets: Number(process.env.AWS_LAMBDA_MAX_CONCURRENCY) > 1 ? Infinity : 1 });
  const base = '/2018-06-01/runtime/';

  function ask(method, where, body, headers = {}) {
    return new Promise((done, failed) => {
      const request = http.request({ host, port, agent, method, path: base + where, headers }, (answer) => {
        const parts = [];
        answer.on('data', (part) => parts.push(part));
        answer.on('end', () => done({ status: answer.statusCode, headers: answer.headers, body: Buffer.concat(parts) }));
      });
      request.on('error', failed);
      request.end(body);
    });
  }

  const failed = (where, shown) => ask('POST', where, JSON.stringify(shown),
    { 'Content-Type': 'application/json', 'Lambda-Runtime-Function-Error-Type': shown.errorType });
  return {
    async next() {
      const { status, headers, body } = await ask('GET', 'invocation/next');
      if (status !== 200)
        process.exit(1);
      return { id: headers['lambda-runtime-aws-request-id'], trace: headers['lambda-runtime-trace-id'],
        arn: headers['lambda-runtime-invoked-function-arn'], client: headers['lambda-runtime-client-context'],
        deadline: Number(headers['lambda-runtime-deadline-ms']), body };
    },
    answer: (id, body) => ask('POST', `invocation/${id}/response`, body,
      { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) }),
    fail: (id, shown) => failed(`invocation/${id}/error`, shown),
    initFailed: (shown) => failed('init/error', shown),
    stream(id, type, settled, broken) {
      const request = http.request({ host, port, agent, method: 'POST', path: `${base}invocation/${id}/response`, headers: {
        'Content-Type': type, 'Lambda-Runtime-Function-Response-Mode': 'streaming', 'Transfer-Encoding': 'chunked',
        Trailer: 'Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body',
      } }, (answer) => {
        answer.resume();
        answer.on('end', settled);
      });
      request.on('error', broken);
      request.flushHeaders();
      return {
        write: (piece, more) => (request.write(piece) ? more() : request.once('drain', () => more())),
        end: (done) => request.end(done),
        fail(shown) {
          request.addTrailers({ 'Lambda-Runtime-Function-Error-Type': shown.errorType,
            'Lambda-Runtime-Function-Error-Body': Buffer.from(JSON.stringify(shown)).toString('base64') });
          request.end();
        },
      };
    },
  };
}

// ---- frames -----------------------------------------------------------------------------------------------

const FRAME = { INVOKE: 1, RESULT: 2, INITED: 3, STREAM: 4, DATA: 5 };
const RESULT = { OK: 0, ERROR: 1, INIT_ERROR: 2, BAD_EVENT: 3 };
const HEAD = 56; // struct instance_frame
const RESPONSE_MAX = 6 * 1024 * 1024 + 100;

let peakKb = 0, peakUntilUs = 0;

function frameWire(z, read = fs.readSync, write = fs.writeSync, wait = z.wait) {
  let input = Buffer.allocUnsafe(65536), have = 0;
  let call = null; // its number, when it came
  let initUs = 0, sinceUs = 0;

  function send(type, result, number, body) {
    const bytes = Buffer.from(body), frame = Buffer.alloc(HEAD + bytes.length);
    frame.writeUInt32LE(bytes.length, 0);
    frame[4] = type;
    frame[5] = result;
    frame.writeBigUInt64LE(BigInt(number), 16);
    if (type === FRAME.RESULT) {
      const now = z.nowUs(), us = sinceUs ? now - sinceUs : 0;
      if (us > 300 || now > peakUntilUs) { // a shorter call does not touch a megabyte: what was seen a moment ago does
        peakKb = z.memoryKb();
        peakUntilUs = now + 50000;
      }
      frame.writeBigUInt64LE(BigInt(peakKb), 24);
      frame.writeBigUInt64LE(BigInt(initUs), 32);
      frame.writeBigUInt64LE(BigInt(z.enteredUs()), 40);
      frame.writeBigUInt64LE(BigInt(us), 48);
      initUs = 0;
      call = null;
    }
    bytes.copy(frame, HEAD);
    for (let at = 0; at < frame.length;)
      at += write(3, frame, at, frame.length - at);
  }

  // whole: bytes that shall be there. False: the gateway has gone.
  function fill(whole) {
    if (whole > input.length) {
      const bigger = Buffer.allocUnsafe(whole);
      input.copy(bigger, 0, 0, have);
      input = bigger;
    }
    while (have < whole) {
      const n = read(3, input, have, input.length - have, null);
      if (n <= 0)
        return false;
      have += n;
    }
    return true;
  }

  function ended(result, body) {
    if (Buffer.byteLength(body) > RESPONSE_MAX) {
      result = RESULT.ERROR;
      body = JSON.stringify({ errorMessage: 'Response payload size exceeded maximum allowed payload size (6291556 bytes).',
        errorType: 'Function.ResponseSizeTooLarge' });
    }
    send(FRAME.RESULT, result, call, body);
  }

  return {
    next() {
      if (have < HEAD)
        wait();
      if (!fill(HEAD))
        z.exit(0);
      const n = input.readUInt32LE(0);
      if (!fill(HEAD + n))
        z.exit(0);
      let at = HEAD;
      const text = (length) => input.toString('utf8', at, at += length);
      call = Number(input.readBigUInt64LE(16));
      const got = { id: text(input.readUInt16LE(6)), trace: text(input.readUInt16LE(8)), arn: text(input.readUInt16LE(10)),
        client: text(input.readUInt32LE(12)), deadline: Number(input.readBigUInt64LE(24)),
        body: Buffer.from(input.subarray(at, HEAD + n)) };
      input.copyWithin(0, HEAD + n, have);
      have -= HEAD + n;
      sinceUs = z.nowUs();
      return got;
    },
    answer: (id, body) => ended(RESULT.OK, body),
    fail: (id, shown) => ended(RESULT.ERROR, JSON.stringify(shown)),
    badEvent: (message) => ended(RESULT.BAD_EVENT, message),
    initFailed(shown) {
      initUs = Math.max(z.nowUs() - sinceUs, 1);
      sinceUs = 0;
      if (call !== null)
        send(FRAME.RESULT, RESULT.INIT_ERROR, call, JSON.stringify(shown));
    },
    // The module is loaded: with a call (its time starts here), or ahead of any.
    inited(timeout) {
      const now = z.nowUs();
      if (call !== null)
        initUs = Math.max(now - sinceUs, 1);
      sinceUs = now;
      send(FRAME.INITED, 0, call ?? 0, '');
      return Date.now() + timeout;
    },
    stream(id, type, settled) {
      const number = call;
      send(FRAME.STREAM, 0, number, type);
      return {
        write(piece, more) {
          for (let at = 0; at < piece.length; at += 65536)
            send(FRAME.DATA, 0, number, piece.subarray(at, at + 65536));
          more();
        },
        end(done) {
          send(FRAME.RESULT, RESULT.OK, number, '');
          settled();
          done();
        },
        fail(shown) {
          send(FRAME.RESULT, RESULT.ERROR, number, JSON.stringify(shown));
          settled();
        },
      };
    },
  };
}

let wire;

// ---- logs: TIME TAB REQUEST TAB LEVEL TAB TEXT, line ends inside as carriage returns ----------------

for (const [name, level] of [['log', 'INFO'], ['info', 'INFO'], ['debug', 'DEBUG'], ['warn', 'WARN'], ['error', 'ERROR'], ['trace', 'TRACE']]) {
  const stream = fs.writeSync.bind(fs, 1);
  console[name] = (...what) => stream(`${new Date().toISOString()}\t${callId()}\t${level}\t${format(...what).replace(/\n/g, '\r')}\n`);
}

// ---- errors -------------------------------------------------------------------------------------------

function described(error, type) {
  if (types.isNativeError(error) || error instanceof Error)
    return { errorType: type || error.name || 'Error', errorMessage: error.message, trace: String(error.stack || '').split('\n') };
  return { errorType: type || typeof error, errorMessage: String(error), trace: [] };
}

function logged(kind, error, shown) {
  const text = JSON.stringify({ errorType: shown.errorType, errorMessage: shown.errorMessage, stack: shown.trace, ...(error && error.code && { code: error.code }) });
  fs.writeSync(1, `${new Date().toISOString()}\t${callId()}\tERROR\t${kind}\t${text}\n`);
}

async function report(where, error, type, kind) {
  const shown = described(error, type);
  logged(kind, error, shown);
  await where(shown);
}

let started = false; // several calls at once are under way: all of them end, with no word to one

async function fatal(kind, error, type) {
  try {
    if (calls && started && callId() === 'undefined') {
      logged(kind, error, described(error, type));
      return;
    }
    await report(callId() === 'undefined' ? wire.initFailed : (shown) => wire.fail(callId(), shown), error, type, kind);
  } finally {
    process.exit(129);
  }
}

process.on('uncaughtException', (error) => fatal('Uncaught Exception', error));
process.on('unhandledRejection', (error) => fatal('Unhandled Promise Rejection', { __proto__: Error.prototype, name: 'Runtime.UnhandledPromiseRejection',
  message: String(error), stack: error && error.stack }, 'Runtime.UnhandledPromiseRejection'));

// ---- answers that stream ------------------------------------------------------------------------------

const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const PRELUDE_TYPE = 'application/vnd.awslambda.http-integration-response';

globalThis.awslambda = {
  streamifyResponse(handler, options) {
    handler[STREAMING] = 'response';
    if (options && options.highWaterMark !== undefined)
      handler[Symbol.for('aws.lambda.runtime.handler.streaming.highWaterMark')] = parseInt(options.highWaterMark, 10);
    return handler;
  },
  HttpResponseStream: {
    // status, headers and cookies go in front of the body's first byte
    from(stream, metadata) {
      stream.setContentType(PRELUDE_TYPE);
      stream.prelude = Buffer.concat([Buffer.from(JSON.stringify(metadata)), Buffer.alloc(8)]);
      return stream;
    },
  },
};

// What a streaming handler writes to: the body of the request that carries the answer.
class ResponseStream extends Writable {
  constructor(id) {
    super({ decodeStrings: true });
    this.type = 'application/octet-stream';
    this.answered = new Promise((done, failed) => { this.settled = { done, failed }; });
    this.answered.catch(() => {});
    this.id = id;
  }

  setContentType(type) {
    if (this.request)
      throw new Error('Cannot set content-type, too late.');
    this.type = type;
  }

  write(what, ...rest) {
    const plain = typeof what === 'string' || Buffer.isBuffer(what) || what instanceof Uint8Array;
    return super.write(plain ? what : JSON.stringify(what), ...rest);
  }

  open() {
    if (this.request)
      return;
    this.request = wire.stream(this.id, this.type, () => this.settled.done(),
      (error) => { this.settled.failed(error); this.destroy(error); });
    if (this.prelude)
      this.request.write(this.prelude, () => {});
  }

  _write(chunk, encoding, done) {
    this.open();
    this.request.write(chunk, () => done());
  }

  _final(done) {
    this.open();
    this.ended = true;
    this.request.end(() => done());
  }

  fail(shown) {
    this.prelude = undefined; // no byte was written: nothing of the answer is valid
    this.open();
    this.ended = true;
    this.request.fail(shown);
    return this.answered;
  }
}

async function runStreaming(handler, event, got) {
  const stream = new ResponseStream(got.id);
  stream.on('error', () => {});
  try {
    const answer = handler(event, stream, contextOf(got, () => {}));
    if (!answer || typeof answer.then !== 'function')
      throw new Error('Streaming does not support non-async handlers.');
    await answer;
    await stream.answered; // comes when the handler has ended the stream
  } catch (error) {
    const shown = described(error);
    logged('Invoke Error', error, shown);
    if (!stream.ended)
      await stream.fail(shown);
  }
}

// ---- the handler --------------------------------------------------------------------------------------

class Init extends Error {
  constructor(name, message) {
    super(message);
    this.name = name;
  }
}

// What is no ES module is loaded at once: no turn of the loop, no thread.
async function loadModule(file, found) {
  if (found && (found.endsWith('.mjs') || (process.env.NODE_OPTIONS || '').includes('loader')))
    return import(pathToFileURL(found));
  try {
    return createRequire(task + '/')(found || file);
  } catch (error) {
    if (error && error.code === 'ERR_REQUIRE_ESM' && found)
      return import(pathToFileURL(found));
    throw error;
  }
}

async function load(name) {
  const slash = name.lastIndexOf('/') + 1;
  const dot = name.indexOf('.', slash);
  if (dot < 0)
    throw new Init('Runtime.MalformedHandlerName', 'Bad handler');
  const file = path.resolve(task, name.slice(0, dot));
  const found = ['.js', '.mjs', '.cjs', ''].map((end) => file + end).find((f) => fs.existsSync(f) && fs.statSync(f).isFile());
  let module;
  try {
    module = await loadModule(file, found);
  } catch (error) {
    if (error instanceof SyntaxError)
      throw new Init('Runtime.UserCodeSyntaxError', String(error.stack || error));
    if (error.code === 'MODULE_NOT_FOUND' || error.code === 'ERR_MODULE_NOT_FOUND')
      throw new Init('Runtime.ImportModuleError', `Error: ${error.message}`);
    throw error;
  }
  let handler = module;
  for (const part of name.slice(dot + 1).split('.'))
    handler = handler && (handler[part] ?? handler.default?.[part]);
  if (!handler)
    throw new Init('Runtime.HandlerNotFound', `${name} is undefined or not exported`);
  if (typeof handler !== 'function')
    throw new Init('Runtime.HandlerNotFound', `${name} is not a function`);
  return handler;
}

function contextOf({ id, arn, client, deadline }, settle) {
  return {
    callbackWaitsForEmptyEventLoop: true,
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
    awsRequestId: id,
    invokedFunctionArn: arn,
    clientContext: client ? JSON.parse(client) : undefined,
    identity: undefined,
    getRemainingTimeInMillis: () => Math.max(deadline - Date.now(), 0),
    succeed: (value) => settle(null, value),
    fail: (error) => settle(error ?? new Error('handled')),
    done: (error, value) => settle(error, value),
  };
}

// A handler answers by its promise, or (with none) by its callback.
function run(handler, event, got) {
  return new Promise((done, failed) => {
    const settle = (error, value) => (error !== null && error !== undefined ? failed(error) : done(value));
    const answer = handler(event, contextOf(got, settle), settle);
    if (answer && typeof answer.then === 'function')
      answer.then(done, failed);
    else if (handler.length < 3 && answer !== undefined)
      done(answer);
    else if (handler.length < 2 && answer === undefined)
      done(undefined);
  });
}

async function answer(handler, got) {
  let event;
  if (!calls)
    requestId = got.id;
  if (got.trace && !calls) // the process has but one
    process.env._X_AMZN_TRACE_ID = got.trace;
  try {
    event = got.body.length ? JSON.parse(got.body.toString()) : {};
    if (got.client)
      JSON.parse(got.client);
  } catch (error) {
    if (wire.badEvent) {
      wire.badEvent(`Could not parse request body into json: ${error.message}`);
      return;
    }
  }
  if (handler[STREAMING]) {
    await runStreaming(handler, event, got);
    return;
  }
  let body;
  try {
    const value = await run(handler, event, got);
    body = JSON.stringify(value === undefined ? null : value) ?? 'null';
  } catch (error) {
    await report((shown) => wire.fail(got.id, shown), error, undefined, 'Invoke Error');
    return;
  }
  await wire.answer(got.id, body);
}

async function main() {
  let handler;
  wire = apiWire();
  try {
    handler = await load(process.env._HANDLER);
  } catch (error) {
    await report(wire.initFailed, error, undefined, 'Uncaught Exception');
    process.exit(1);
  }
  const serve = async () => {
    for (;;) {
      const got = await wire.next();
      await (calls ? calls.run(got.id, answer, handler, got) : answer(handler, got));
    }
  };
  started = true;
  await Promise.all(Array.from({ length: places }, serve));
}

// ---- a zygote, and the instances that are its forks ----------------------------------------------------------

const NEXT = { FORK: 1, ZYGOTE: 4, AHEAD: 101, AHEAD_INIT: 102, REHEARSE: 103 };
const UNSEEN = 124; // loading ahead did not work out: who has a call shall see how

async function serve(z, what, config) {
  let handler;
  // Math.random() takes its first seed when it is first called, which nobody has done yet: not the zygote's, then
  v8.setFlagsFromString(`--random-seed=${z.random()}`);
  Object.defineProperty(process, 'pid', { value: z.pid(), writable: true, enumerable: true, configurable: true });
  process.env.AWS_LAMBDA_LOG_STREAM_NAME = z.stream();
  if (config.env.TZ)
    process.env.TZ = config.env.TZ;
  if (what !== NEXT.FORK) // takes its copies of the pages that a request will touch while nobody waits
    await warmUp(z, 1);
  wire = frameWire(z);
  process.reallyExit = (code) => z.exit(code);
  process.on('beforeExit', () => z.exit(13)); // nothing is left to wait for, and no answer: as Node's own end is
  if (what === NEXT.AHEAD_INIT) {
    try {
      handler = await load(process.env._HANDLER);
    } catch {
      z.exit(UNSEEN);
    }
    wire.inited();
  }
  for (;;) {
    const got = wire.next();
    if (!handler) {
      try {
        handler = await load(process.env._HANDLER);
      } catch (error) {
        await report(wire.initFailed, error, undefined, 'Uncaught Exception');
        z.exit(1);
      }
      got.deadline = wire.inited(config.timeout_ms);
    }
    await answer(handler, got);
  }
}

// What a request goes through, without one, and without a word of the function's: a module of ours, a frame from nowhere.
async function warmUp(z, rounds) {
  const text = 'warmwarmarn{"a": 1}', frame = Buffer.alloc(HEAD + text.length);
  const own = createRequire('/var/runtime/');
  const read = (fd, into, at) => frame.copy(into, at);
  const was = task;
  frame.writeUInt32LE(text.length, 0);
  frame.writeUInt16LE(4, 6);
  frame.writeUInt16LE(4, 8);
  frame.writeUInt16LE(3, 10);
  frame.write(text, HEAD);
  task = '/var/runtime';
  for (let i = 0; i < rounds; i++) {
    peakUntilUs = 0;
    wire = frameWire(z, read, (fd, bytes, at, n) => n, () => 0);
    const got = wire.next();
    delete own.cache['/var/runtime/warm.js'];
    const handler = await load('warm.handler');
    got.deadline = wire.inited(1000);
    await answer(handler, got);
    format('%s %o', 'warm', { a: [1, 'b'] });
    new Date().toISOString();
  }
  task = was;
  requestId = 'undefined';
}

// A Node that has nothing of a function's and forks functions' zygotes. Comes back in each of them, in the function's own
// root, with its configuration.
function base(z, need) {
  need(z.baseReady(), 'ready');
  for (;;) {
    const what = z.next();
    if (what === 0)
      z.exit(0);
    if (what !== NEXT.ZYGOTE)
      continue;
    const text = Buffer.allocUnsafe(1 << 20);
    const given = JSON.parse(text.toString('utf8', 0, fs.readSync(3, text)));
    need(z.takeRoot(), 'root');
    need(z.config(given.uid, given.tmp_mb, '169.254.0.1'), 'config');
    process.chdir('/var/task'); // what it remembers of where it was is wrong
    return given;
  }
}

async function zygote(config) {
  const own = { exports: {} };
  process.dlopen(own, '/var/runtime/zygote.node');
  const z = own.exports;
  const need = (result, step) => {
    if (result < 0) {
      z.failed(`${step}: ${-result}`);
      z.exit(1);
    }
    return result;
  };
  need(z.resume(), 'resume');
  if (!config.base)
    need(z.config(config.uid, config.tmp_mb, config.host), 'config');
  for (const name of ['https', 'crypto', 'zlib', 'dns', 'events', 'buffer', 'querystring', 'string_decoder', 'timers/promises', 'fs/promises', 'child_process', 'async_hooks'])
    createRequire('/var/runtime/')(`node:${name}`);
  for (const name of Object.keys(process.env))
    delete process.env[name];
  if (config.base) {
    await warmUp(z, 30);
    config = base(z, need);
  }
  for (const [name, value] of Object.entries(config.env))
    if (name !== 'TZ') // the one that names a file to be read
      process.env[name] = value;
  Module._initPaths(); // NODE_PATH
  task = process.env.LAMBDA_TASK_ROOT || '/var/task';
  if (!config.give) {
    await warmUp(z, 30);
    if (need(z.rehearse(), 'rehearse') === 1) {
      await warmUp(z, 1);
      z.rehearsed();
    }
  }
  need(z.ready(), 'ready');
  for (;;) {
    const what = z.next();
    if (what === NEXT.REHEARSE) {
      await warmUp(z, 1);
      z.rehearsed();
    }
    if (what === NEXT.FORK || what === NEXT.AHEAD || what === NEXT.AHEAD_INIT)
      return serve(z, what, config);
    if (what === 0)
      z.exit(0);
  }
}

if (process.env.TANDEM_ZYGOTE)
  await zygote(JSON.parse(process.env.TANDEM_ZYGOTE));
else
  await main();
