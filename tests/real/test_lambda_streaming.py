"""Answers that come in pieces: InvokeWithResponseStream and function URLs, by an unmodified boto3 and plain sockets."""
import base64, json, time, urllib.error, urllib.request

import pytest

from conftest import eventually
from test_lambda import call, create, fn, refused, zipped  # noqa: F401 (fn is a fixture)

NODE = '''
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
exports.handler = awslambda.streamifyResponse(async (event, stream, context) => {
  const ask = event.rawQueryString !== undefined ? Object.fromEntries(new URLSearchParams(event.rawQueryString)) : event;
  if (ask.http)
    stream = awslambda.HttpResponseStream.from(stream, { statusCode: 201, headers: { 'Content-Type': 'text/x-own', 'x-own': 'yes' }, cookies: ['a=1', 'b=2'] });
  else
    stream.setContentType('text/plain');
  if (ask.early)
    throw new RangeError('before a byte');
  for (let n = 0; n < (ask.parts || 3); n++) {
    stream.write(`part ${n};`);
    await sleep(ask.pause || 0);
  }
  if (ask.mb) {
    const block = Buffer.alloc(1 << 20, 'x');
    for (let n = 0; n < ask.mb; n++)
      if (!stream.write(block))
        await new Promise((done) => stream.once('drain', done));
    console.log('written', ask.mb);
  }
  if (ask.late)
    throw new RangeError('after some bytes');
  if (ask.exit)
    process.exit(7);
  stream.end();
});
'''


@pytest.fixture(scope='module')
def flow(fn):
    try:
        create(fn, 'flow', code=zipped(NODE, 'index.js'), Runtime='nodejs18.x', Handler='index.handler', MemorySize=512, Timeout=90)
    except fn.exceptions.InvalidParameterValueException as e:
        pytest.skip(str(e))
    fn.create_function_url_config(FunctionName='flow', AuthType='NONE', InvokeMode='RESPONSE_STREAM')
    assert fn.get_function_url_config(FunctionName='flow')['InvokeMode'] == 'RESPONSE_STREAM'
    return 'flow'


def stream(fn, name, event, **more):
    """The pieces with the time of each, and the last event."""
    got = fn.invoke_with_response_stream(FunctionName=name, Payload=json.dumps(event), **more)
    assert got['StatusCode'] == 200 and got['ExecutedVersion'] == '$LATEST', got
    pieces, end = [], None
    for event in got['EventStream']:                     # botocore checks both CRCs of every event
        assert end is None, 'nothing comes after InvokeComplete'
        if 'PayloadChunk' in event:
            pieces.append((time.time(), event['PayloadChunk']['Payload']))
        else:
            end = event['InvokeComplete']
    assert end is not None
    return pieces, end


def text(pieces):
    return b''.join(p for _, p in pieces)


def url(tandem, name, query=''):
    return f'http://127.0.0.1:{tandem.status["gateway"].rsplit(":", 1)[1].strip("/")}/function/{name}/x?{query}'


def test_pieces_come_as_they_are_written(fn, flow):
    pieces, end = stream(fn, flow, {'pause': 1500}, LogType='Tail')
    assert text(pieces) == b'part 0;part 1;part 2;' and 'ErrorCode' not in end
    assert pieces[-1][0] - pieces[0][0] > 0.4, 'the first piece was held until the last'
    assert 'REPORT RequestId' in base64.b64decode(end['LogResult']).decode()


def test_errors_before_and_after_the_first_byte(fn, flow):
    pieces, end = stream(fn, flow, {'early': 1})
    assert not pieces and end['ErrorCode'] == 'RangeError' and json.loads(end['ErrorDetails'])['errorMessage'] == 'before a byte'
    pieces, end = stream(fn, flow, {'late': 1})
    assert text(pieces).startswith(b'part 0;') and end['ErrorCode'] == 'RangeError' and 'after some bytes' in end['ErrorDetails']
    pieces, end = stream(fn, flow, {'exit': 1})
    assert end['ErrorCode'].startswith('Runtime.'), end
    assert text(stream(fn, flow, {})[0]) == b'part 0;part 1;part 2;'      # and the next one is well


def test_a_function_that_does_not_stream(fn):
    create(fn, 'whole')
    pieces, end = stream(fn, 'whole', {'a': 1})
    assert json.loads(text(pieces)) == {'echo': {'a': 1}, 'version': 1} and 'ErrorCode' not in end
    pieces, end = stream(fn, 'whole', {'do': 'fail'})
    assert end['ErrorCode'] == 'ValueError' and json.loads(end['ErrorDetails'])['errorMessage'] == 'asked to'
    refused('ResourceNotFoundException', 404, fn.invoke_with_response_stream, FunctionName='nobody', Payload=b'{}')
    refused('InvalidRequestContentException', 400, fn.invoke_with_response_stream, FunctionName='whole', Payload=b'{nope')
    assert fn.invoke_with_response_stream(FunctionName='whole', InvocationType='DryRun')['StatusCode'] == 204


def test_invoke_collects_the_pieces(fn, flow):
    got = fn.invoke(FunctionName=flow, Payload=b'{}')
    assert got['Payload'].read() == b'part 0;part 1;part 2;' and 'FunctionError' not in got
    got = fn.invoke(FunctionName=flow, Payload=b'{"mb": 8}')
    assert got['FunctionError'] == 'Unhandled' and json.loads(got['Payload'].read())['errorType'] == 'Function.ResponseSizeTooLarge'


def test_more_than_six_megabytes_stream(fn, flow):
    pieces, end = stream(fn, flow, {'mb': 20})
    assert len(text(pieces)) == 20 * (1 << 20) + 21 and 'ErrorCode' not in end


def test_url_streams_with_status_headers_and_cookies(tandem, fn, flow):
    eventually(lambda: urllib.request.urlopen(url(tandem, flow)).status == 200, 10)
    with urllib.request.urlopen(url(tandem, flow, 'http=1&pause=1500')) as got:
        assert (got.status, got.headers['x-own'], got.headers['content-type']) == (201, 'yes', 'text/x-own')
        assert got.headers.get_all('set-cookie') == ['a=1', 'b=2'] and got.headers['transfer-encoding'] == 'chunked'
        first = got.read1()
        began = time.time()
        rest = got.read()
        assert first == b'part 0;' and rest == b'part 1;part 2;' and time.time() - began > 0.2
    with pytest.raises(urllib.error.HTTPError) as e:
        urllib.request.urlopen(url(tandem, flow, 'early=1&http=1'))
    assert e.value.code == 502
    with pytest.raises(Exception):                       # cut, not ended: the client can tell
        urllib.request.urlopen(url(tandem, flow, 'late=1')).read()
    fn.update_function_url_config(FunctionName=flow, InvokeMode='BUFFERED')
    eventually(lambda: urllib.request.urlopen(url(tandem, flow, 'http=1')).headers['transfer-encoding'] is None, 10)
    with urllib.request.urlopen(url(tandem, flow, 'http=1')) as got:
        assert (got.status, got.headers['x-own'], got.read()) == (201, 'yes', b'part 0;part 1;part 2;')
    fn.update_function_url_config(FunctionName=flow, InvokeMode='RESPONSE_STREAM')


def test_a_slow_client_holds_the_function_back(tandem, fn, flow):
    eventually(lambda: urllib.request.urlopen(url(tandem, flow)).headers['transfer-encoding'] == 'chunked', 10)
    log = lambda: tandem.tandem('logs', flow).stdout
    gateway = tandem.processes()['gateway']
    used = lambda: int(next(l for l in open(f'/proc/{gateway}/status') if l.startswith('VmRSS')).split()[1])
    before = used()
    with urllib.request.urlopen(url(tandem, flow, 'mb=60')) as got:
        got.read(100)
        time.sleep(1.5)
        rss = used()
        assert rss < before + 128 * 1024, f'{before} KiB, then {rss} KiB in the gateway'
        assert 'written 60' not in log()
        n = 100
        while piece := got.read(1 << 20):
            n += len(piece)
    assert n == 60 * (1 << 20) + 21
    eventually(lambda: 'written 60' in log(), 10)


def test_a_client_that_goes_away(tandem, fn, flow):
    got = urllib.request.urlopen(url(tandem, flow, 'mb=30'))
    got.read(100)
    got.close()
    eventually(lambda: 'written 30' in tandem.tandem('logs', flow).stdout, 10)   # as on Lambda: it runs to its end
    assert text(stream(fn, flow, {})[0]) == b'part 0;part 1;part 2;'
