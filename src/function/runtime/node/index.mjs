// index.mjs - what a Node function runs in: it loads the handler and serves it through the Runtime API.
// Behaviour towards handlers (context, errors, log lines) is that of Lambda's own runtime.
import http from 'node:http';
import { createRequire } from 'node:module';
import fs from 'node:fs';
import path from 'node:path';
import { Writable } from 'node:stream';
import { format, types } from 'node:util';
import { pathToFileURL } from 'node:url';

const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(':');
const task = process.env.LAMBDA_TASK_ROOT || '/var/task';
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const base = '/2018-06-01/runtime/';
let requestId = 'undefined';

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

// ---- logs: TIME TAB REQUEST TAB LEVEL TAB TEXT, line ends inside as carriage returns ----------------

for (const [name, level] of [['log', 'INFO'], ['info', 'INFO'], ['debug', 'DEBUG'], ['warn', 'WARN'], ['error', 'ERROR'], ['trace', 'TRACE']]) {
  const stream = fs.writeSync.bind(fs, 1);
  console[name] = (...what) => stream(`${new Date().toISOString()}\t${requestId}\t${level}\t${format(...what).replace(/\n/g, '\r')}\n`);
}

// ---- errors -------------------------------------------------------------------------------------------

function described(error, type) {
  if (types.isNativeError(error) || error instanceof Error)
    return { errorType: type || error.name || 'Error', errorMessage: error.message, trace: String(error.stack || '').split('\n') };
  return { errorType: type || typeof error, errorMessage: String(error), trace: [] };
}

function logged(kind, error, shown) {
  const text = JSON.stringify({ errorType: shown.errorType, errorMessage: shown.errorMessage, stack: shown.trace, ...(error && error.code && { code: error.code }) });
  fs.writeSync(1, `${new Date().toISOString()}\t${requestId}\tERROR\t${kind}\t${text}\n`);
}

async function report(where, error, type, kind) {
  const shown = described(error, type);
  logged(kind, error, shown);
  await ask('POST', where, JSON.stringify(shown), { 'Content-Type': 'application/json', 'Lambda-Runtime-Function-Error-Type': shown.errorType });
}

async function fatal(kind, error, type) {
  try {
    await report(requestId === 'undefined' ? 'init/error' : `invocation/${requestId}/error`, error, type, kind);
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
    this.request = http.request({ host, port, agent, method: 'POST', path: `${base}invocation/${this.id}/response`, headers: {
      'Content-Type': this.type, 'Lambda-Runtime-Function-Response-Mode': 'streaming', 'Transfer-Encoding': 'chunked',
      Trailer: 'Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body',
    } }, (answer) => {
      answer.resume();
      answer.on('end', () => this.settled.done());
    });
    this.request.on('error', (error) => { this.settled.failed(error); this.destroy(error); });
    this.request.flushHeaders();
    if (this.prelude)
      this.request.write(this.prelude);
  }

  _write(chunk, encoding, done) {
    this.open();
    if (this.request.write(chunk))
      done();
    else
      this.request.once('drain', () => done());
  }

  _final(done) {
    this.open();
    this.request.end(() => done());
  }

  fail(shown) {
    this.prelude = undefined; // no byte was written: nothing of the answer is valid
    this.open();
    this.request.addTrailers({ 'Lambda-Runtime-Function-Error-Type': shown.errorType,
      'Lambda-Runtime-Function-Error-Body': Buffer.from(JSON.stringify(shown)).toString('base64') });
    this.request.end();
    return this.answered;
  }
}

async function runStreaming(handler, event, headers) {
  const stream = new ResponseStream(requestId);
  stream.on('error', () => {});
  try {
    const answer = handler(event, stream, contextOf(headers, () => {}));
    if (!answer || typeof answer.then !== 'function')
      throw new Error('Streaming does not support non-async handlers.');
    await answer;
    await stream.answered; // comes when the handler has ended the stream
  } catch (error) {
    const shown = described(error);
    logged('Invoke Error', error, shown);
    if (!stream.request || !stream.request.writableEnded)
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

async function load(name) {
  const slash = name.lastIndexOf('/') + 1;
  const dot = name.indexOf('.', slash);
  if (dot < 0)
    throw new Init('Runtime.MalformedHandlerName', 'Bad handler');
  const file = path.resolve(task, name.slice(0, dot));
  const found = ['.js', '.mjs', '.cjs', ''].map((end) => file + end).find((f) => fs.existsSync(f) && fs.statSync(f).isFile());
  let module;
  try {
    module = found ? await import(pathToFileURL(found)) : createRequire(task + '/')(file);
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

function contextOf(headers, settle) {
  const deadline = Number(headers['lambda-runtime-deadline-ms']);
  const client = headers['lambda-runtime-client-context'];
  return {
    callbackWaitsForEmptyEventLoop: true,
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
    awsRequestId: headers['lambda-runtime-aws-request-id'],
    invokedFunctionArn: headers['lambda-runtime-invoked-function-arn'],
    clientContext: client ? JSON.parse(client) : undefined,
    identity: undefined,
    getRemainingTimeInMillis: () => Math.max(deadline - Date.now(), 0),
    succeed: (value) => settle(null, value),
    fail: (error) => settle(error ?? new Error('handled')),
    done: (error, value) => settle(error, value),
  };
}

// A handler answers by its promise, or (with none) by its callback.
function run(handler, event, headers) {
  return new Promise((done, failed) => {
    const settle = (error, value) => (error !== null && error !== undefined ? failed(error) : done(value));
    const answer = handler(event, contextOf(headers, settle), settle);
    if (answer && typeof answer.then === 'function')
      answer.then(done, failed);
    else if (handler.length < 3 && answer !== undefined)
      done(answer);
    else if (handler.length < 2 && answer === undefined)
      done(undefined);
  });
}

async function main() {
  let handler;
  try {
    handler = await load(process.env._HANDLER);
  } catch (error) {
    await report('init/error', error, undefined, 'Uncaught Exception');
    process.exit(1);
  }
  for (;;) {
    const next = await ask('GET', 'invocation/next');
    if (next.status !== 200)
      process.exit(1);
    requestId = next.headers['lambda-runtime-aws-request-id'];
    if (next.headers['lambda-runtime-trace-id'])
      process.env._X_AMZN_TRACE_ID = next.headers['lambda-runtime-trace-id'];
    let body;
    if (handler[STREAMING]) {
      await runStreaming(handler, JSON.parse(next.body.toString()), next.headers);
      continue;
    }
    try {
      const value = await run(handler, JSON.parse(next.body.toString()), next.headers);
      body = JSON.stringify(value === undefined ? null : value) ?? 'null';
    } catch (error) {
      await report(`invocation/${requestId}/error`, error, undefined, 'Invoke Error');
      continue;
    }
    await ask('POST', `invocation/${requestId}/response`, body, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) });
  }
}

await main();
