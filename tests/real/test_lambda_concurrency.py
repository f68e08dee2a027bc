"""Several calls at once in one instance: how Lambda's capacity providers ask for it, and what runtimes see of it."""
import concurrent.futures
import json

from conftest import eventually
from test_lambda import create, fn, zipped  # noqa: F401 (fn is a fixture)
from test_lambda_runtimes import executable

PROVIDER = 'arn:aws:lambda:us-east-1:000000000000:capacity-provider:here'
NODE = '''
exports.handler = async (event, context) => {
  console.log('number', event.n);
  await new Promise((done) => setTimeout(done, 4000));
  return [event.n, context.logStreamName, process.env.AWS_LAMBDA_MAX_CONCURRENCY];
};
'''
# a bootstrap with as many connections as it is told to have, all of them waiting for the next call
BOOTSTRAP = '''#!/usr/bin/python3
import http.client, os, threading, time
def worker():
    api = http.client.HTTPConnection(os.environ['AWS_LAMBDA_RUNTIME_API'])
    while True:
        api.request('GET', '/2018-06-01/runtime/invocation/next')
        got = api.getresponse()
        got.read()
        time.sleep(4)
        api.request('POST', '/2018-06-01/runtime/invocation/%s/response' % got.headers['Lambda-Runtime-Aws-Request-Id'],
                    '["%s"]' % os.environ['AWS_LAMBDA_LOG_STREAM_NAME'])
        api.getresponse().read()
for _ in range(int(os.environ['AWS_LAMBDA_MAX_CONCURRENCY'])):
    threading.Thread(target=worker).start()
'''


TOGETHER = '''import os, time
def handler(event, context):
    open('/tmp/here-%d' % os.getpid(), 'w').close()
    until = time.time() + 10
    while len([f for f in os.listdir('/tmp') if f.startswith('here-')]) < 4 and time.time() < until:
        time.sleep(0.05)
    return [context.log_stream_name, os.getpid()]
'''                                                   # all four are at work at the same time


def with_places(n):
    return {'LambdaManagedInstancesCapacityProviderConfig': {'CapacityProviderArn': PROVIDER, 'PerExecutionEnvironmentMaxConcurrency': n}}


def crowd(fn, name, n):
    def one(k):
        got = fn.invoke(FunctionName=name, Payload=json.dumps({'n': k}), LogType='Tail')
        answer = json.loads(got['Payload'].read())
        assert 'FunctionError' not in got, answer
        return answer
    with concurrent.futures.ThreadPoolExecutor(n) as many:
        return list(many.map(one, range(n)))


def test_node_takes_many_calls(fn, tandem):
    made = create(fn, 'placesnode', Runtime='nodejs20.x', Handler='app.handler', code=zipped(NODE, 'app.js'), Timeout=60,
                  CapacityProviderConfig=with_places(10))
    assert made['CapacityProviderConfig'] == with_places(10)
    fn.get_waiter('function_active_v2').wait(FunctionName='placesnode')
    got = crowd(fn, 'placesnode', 10)
    assert [g[0] for g in got] == list(range(10)) and {g[2] for g in got} == {'10'}
    assert len({g[1] for g in got}) <= 2                             # instances
    def told():
        text = [e['message'] for e in tandem.boto('logs').filter_log_events(logGroupName='/aws/lambda/placesnode')['events']]
        return len([t for t in text if t.startswith('REPORT RequestId: ')]) == 10 and text
    text = eventually(told)
    ids = {t.split('RequestId: ')[1].split()[0] for t in text if t.startswith('START')}
    assert {t.split('\t')[1] for t in text if '\tnumber ' in t} == ids  # each line says whose it is
    assert fn.update_function_configuration(FunctionName='placesnode', CapacityProviderConfig=with_places(2))['CapacityProviderConfig'] == with_places(2)
    assert crowd(fn, 'placesnode', 2)[0][2] == '2'
    plain = {'LambdaManagedInstancesCapacityProviderConfig': {'CapacityProviderArn': PROVIDER}}
    got = fn.update_function_configuration(FunctionName='placesnode', CapacityProviderConfig=plain)['CapacityProviderConfig']
    assert got == with_places(64)                                    # Node's default, though the request names no runtime
    fn.delete_function(FunctionName='placesnode')


def test_bootstrap_takes_many_calls(fn):
    create(fn, 'placesboot', Runtime='provided.al2023', Handler='any', Timeout=60, MemorySize=256,
           code=executable(BOOTSTRAP), CapacityProviderConfig=with_places(6))
    fn.get_waiter('function_active_v2').wait(FunctionName='placesboot')
    assert len({g[0] for g in crowd(fn, 'placesboot', 6)}) <= 2
    fn.delete_function(FunctionName='placesboot')


def test_python_takes_many_calls(fn):
    create(fn, 'placespy', code=zipped(TOGETHER), Timeout=60, MemorySize=512,
           CapacityProviderConfig=with_places(4))
    fn.get_waiter('function_active_v2').wait(FunctionName='placespy')
    got = crowd(fn, 'placespy', 4)
    assert len({g[0] for g in got}) <= 2 and len({tuple(g) for g in got}) == 4  # processes, as with Lambda's own client
    fn.delete_function(FunctionName='placespy')
