"""Functions that are no Python, through an unmodified boto3."""
import json

import pytest

from conftest import eventually
from test_lambda import create, fn, refused, zipped  # noqa: F401 (fn is a fixture)

NODE = '''
const { hostname } = require('os');
exports.handler = async (event, context) => {
  console.log('seen', event.n);
  if (event.fail) throw new RangeError('too far');
  const answer = await fetch(process.env.AWS_ENDPOINT_URL + '/');      // the platform's own door, over the network
  return { n: event.n * 2, arn: context.invokedFunctionArn, host: hostname(), status: answer.status, version: process.version };
};
'''
SHELL = '''#!/bin/bash
while true; do
  exec 9<>/dev/tcp/${AWS_LAMBDA_RUNTIME_API/://}
  printf 'GET /2018-06-01/runtime/invocation/next HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' >&9
  id= n=0
  while IFS=$' \\r' read -r key value rest <&9 && [ -n "$key" ]; do
    case ${key,,} in lambda-runtime-aws-request-id:) id=$value ;; content-length:) n=$value ;; esac
  done
  read -r -N "$n" body <&9
  exec 9>&-
  answer="{\\"shell\\":$body}"
  exec 9<>/dev/tcp/${AWS_LAMBDA_RUNTIME_API/://}
  printf 'POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n%s' "$id" "${#answer}" "$answer" >&9
  cat <&9 >/dev/null
  exec 9>&-
done
'''


def executable(text, name='bootstrap'):
    import io, zipfile
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as z:
        info = zipfile.ZipInfo(name)
        info.external_attr = 0o100755 << 16
        z.writestr(info, text)
    return out.getvalue()


def test_node(fn):
    try:
        create(fn, 'node', code=zipped(NODE, 'index.js'), Runtime='nodejs18.x', Handler='index.handler', MemorySize=256, Timeout=10)
    except fn.exceptions.InvalidParameterValueException as e:
        pytest.skip(str(e))
    got = fn.invoke(FunctionName='node', Payload=json.dumps({'n': 21}), LogType='Tail')
    said = json.loads(got['Payload'].read())
    assert said.get('n') == 42 and said['arn'].endswith(':function:node') and said['status'] in range(200, 500), said
    import base64
    assert 'INFO\tseen 21' in base64.b64decode(got['LogResult']).decode()
    got = fn.invoke(FunctionName='node', Payload=json.dumps({'n': 1, 'fail': True}))
    error = json.loads(got['Payload'].read())
    assert got['FunctionError'] == 'Unhandled' and (error['errorType'], error['errorMessage']) == ('RangeError', 'too far')


def test_a_shell_script_is_a_runtime(fn):
    create(fn, 'shell', code=executable(SHELL), Runtime='provided.al2023', Handler='any')
    for n in range(3):
        assert json.loads(fn.invoke(FunctionName='shell', Payload=json.dumps({'n': n}))['Payload'].read()) == {'shell': {'n': n}}


def test_a_bootstrap_in_a_layer(fn):
    layer = fn.publish_layer_version(LayerName='shell-runtime', Content={'ZipFile': executable(SHELL)})['LayerVersionArn']
    create(fn, 'by-layer', code=zipped('x', 'data.txt'), Runtime='provided.al2023', Handler='any', Layers=[layer])
    assert json.loads(fn.invoke(FunctionName='by-layer', Payload=b'[1]')['Payload'].read()) == {'shell': [1]}


def test_no_bootstrap_says_so(fn):
    create(fn, 'nothing', code=zipped('x', 'data.txt'), Runtime='provided.al2023', Handler='any')
    got = fn.invoke(FunctionName='nothing')
    said = json.loads(got['Payload'].read())
    assert got['FunctionError'] == 'Unhandled' and said['errorType'] == 'Runtime.InvalidEntrypoint' and 'valid bootstrap' in said['errorMessage'], said
