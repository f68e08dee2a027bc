"""Durable executions: AWS's own SDK for Python, unmodified, in functions; boto3 from outside."""
import io, json, os, uuid, zipfile

import pytest
from botocore.exceptions import ClientError

from aws_shapes import watch
from conftest import TOP, eventually

ROLE = 'arn:aws:iam::000000000000:role/any'
SDK = os.path.join(TOP, 'build', 'durable-py')
CODE = '''
import json, os
from aws_durable_execution_sdk_python import durable_execution
from aws_durable_execution_sdk_python.config import CallbackConfig, Duration, StepConfig, StepSemantics
from aws_durable_execution_sdk_python.retries import RetryDecision
from aws_durable_execution_sdk_python.waits import WaitForConditionConfig, WaitForConditionDecision

seconds = Duration.from_seconds


def again(tries):
    return StepConfig(retry_strategy=lambda error, attempt: RetryDecision.retry(seconds(1)) if attempt < tries else RetryDecision.no_retry())


def steps(event, ctx):
    a = ctx.step(lambda _: event['n'] + 1, name='one')
    ctx.wait(seconds(event.get('wait', 1)), name='nap')
    return {'a': a, 'b': ctx.step(lambda _: a * 2, name='two')}


def retries(event, ctx):
    def flaky(step):
        if step.attempt <= event['fails']:
            raise ValueError(f'try {step.attempt}')
        return step.attempt
    return ctx.step(flaky, name='flaky', config=again(event.get('tries', 5)))


def callback(event, ctx):
    c = ctx.create_callback(name='approval', config=CallbackConfig(timeout=seconds(event.get('timeout', 0)), heartbeat_timeout=seconds(event.get('beat', 0))))
    try:
        return {'said': c.result()}
    except Exception as e:
        return {'error': type(e).__name__, 'type': getattr(e, 'error_type', None), 'message': str(e)}


def chain(event, ctx):
    try:
        return {'other': ctx.invoke(event['function'], event['payload'], name='other')}
    except Exception as e:
        return {'error': type(e).__name__, 'type': getattr(e, 'error_type', None), 'message': str(e)}


def tour(event, ctx):
    def child(c):
        c.wait(seconds(1))
        return c.step(lambda _: 'inside', name='inner')
    squares = ctx.map(event['list'], lambda c, item, i, items: c.step(lambda _: item * item))
    both = ctx.parallel([lambda c: c.step(lambda _: 'left'), lambda c: c.step(lambda _: 'right')])
    return {'child': ctx.run_in_child_context(child, name='part'), 'squares': squares.get_results(), 'both': both.get_results()}


def condition(event, ctx):
    return ctx.wait_for_condition(lambda state, _: state + 1, WaitForConditionConfig(
        wait_strategy=lambda state, attempt: WaitForConditionDecision.stop_polling() if state >= 3 else WaitForConditionDecision.continue_waiting(seconds(1)),
        initial_state=0))


def many(event, ctx):
    for i in range(event['steps']):
        ctx.step(lambda _: 'x' * event['bytes'], name=f's{i}')
    return 'done'


def fail(event, ctx):
    raise KeyError('on purpose')


@durable_execution
def handler(event, ctx):
    return globals()[event['do']](event, ctx)


def plain(event, context):
    if event.get('fail'):
        raise RuntimeError('plain failed')
    return {'plain': event}


def odd(event, context):
    return event_output(event)


def event_output(event):
    return json.loads(event['InitialExecutionState']['Operations'][0]['ExecutionDetails']['InputPayload'])
'''


def zipped(text):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED) as z:
        z.writestr('app.py', text)
    return out.getvalue()


def layer_zip():
    """The SDK and boto3 as pip brought them, without the models of other services."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as z:
        for folder, folders, files in os.walk(SDK):
            inside = os.path.relpath(folder, SDK)
            if inside == os.path.join('botocore', 'data'):
                folders[:] = ['lambda']
            for f in files:
                if not f.endswith('.pyc'):
                    z.write(os.path.join(folder, f), os.path.join('python', inside, f))
    return out.getvalue()


@pytest.fixture(scope='module')
def fn(tandem):
    return watch(tandem.boto('lambda'))


@pytest.fixture(scope='module')
def made(fn):
    """What creates durable functions, and removes them at the end."""
    layer = fn.publish_layer_version(LayerName='durable-sdk-layer', Content={'ZipFile': layer_zip()})['LayerVersionArn']
    names = []

    def create(name, handler='app.handler', durable=None, code=CODE, **more):
        if durable is not False:
            more['DurableConfig'] = durable or {'ExecutionTimeout': 600, 'RetentionPeriodInDays': 1}
        fn.create_function(FunctionName=name, Runtime='python3.11', Role=ROLE, Handler=handler, Code={'ZipFile': zipped(code)}, Layers=[layer], MemorySize=256,
                           Timeout=60, **more)
        names.append(name)
        return name

    yield create
    for name in names:
        fn.delete_function(FunctionName=name)
    fn.delete_layer_version(LayerName='durable-sdk-layer', VersionNumber=int(layer.rsplit(':', 1)[1]))


@pytest.fixture(scope='module')
def durable(made):
    return made('durable-tour')


def start(fn, name, event, qualifier='$LATEST', **more):
    answer = fn.invoke(FunctionName=name, Qualifier=qualifier, InvocationType='Event', Payload=json.dumps(event), **more)
    assert answer['StatusCode'] == 202
    return answer['DurableExecutionArn']


def ended(fn, arn, seconds=60):
    def over():
        e = fn.get_durable_execution(DurableExecutionArn=arn)
        return e if e['Status'] not in ('RUNNING', 'PAUSING', 'PAUSED') else None
    return eventually(over, seconds, 0.1)


def history(fn, arn, **more):
    return [e for page in fn.get_paginator('get_durable_execution_history').paginate(DurableExecutionArn=arn, **more) for e in page['Events']]


def kinds(fn, arn):
    return [e['EventType'] for e in history(fn, arn)]


def refused(code, what, *args, **kw):
    with pytest.raises(ClientError) as e:
        what(*args, **kw)
    assert e.value.response['Error']['Code'] == code, e.value
    return e.value.response['Error']['Message']


def run(fn, name, event, **more):
    answer = fn.invoke(FunctionName=name, Qualifier='$LATEST', Payload=json.dumps(event), **more)
    return answer, json.loads(answer['Payload'].read())


# ---- what the SDK does ----

def test_steps_and_a_wait(fn, durable):
    answer, result = run(fn, durable, {'do': 'steps', 'n': 1})
    assert result == {'a': 2, 'b': 4} and 'FunctionError' not in answer
    arn = answer['DurableExecutionArn']
    assert f':function:{durable}:$LATEST/durable-execution/' in arn
    said = kinds(fn, arn)
    assert [k for k in said if k != 'InvocationCompleted'] == ['ExecutionStarted', 'StepStarted', 'StepSucceeded', 'WaitStarted', 'WaitSucceeded', 'StepStarted', 'StepSucceeded',
                                                               'ExecutionSucceeded']
    assert said.count('InvocationCompleted') == 2 and said.index('InvocationCompleted') > said.index('WaitStarted')    # the second may pass before the first has ended
    e = fn.get_durable_execution(DurableExecutionArn=arn)
    assert e['Status'] == 'SUCCEEDED' and json.loads(e['Result']) == result and json.loads(e['InputPayload']) == {'do': 'steps', 'n': 1}
    assert e['DurableConfig'] == {'ExecutionTimeout': 600, 'RetentionPeriodInDays': 1} and e['Version'] == '$LATEST'


def test_a_step_is_tried_again(fn, durable):
    answer, result = run(fn, durable, {'do': 'retries', 'fails': 2})
    events = history(fn, answer['DurableExecutionArn'])
    failed = [e['StepFailedDetails'] for e in events if e['EventType'] == 'StepFailed']
    assert [f['RetryDetails'] for f in failed] == [{'CurrentAttempt': 1, 'NextAttemptDelaySeconds': 1}, {'CurrentAttempt': 2, 'NextAttemptDelaySeconds': 1}]
    assert failed[0]['Error']['Payload']['ErrorMessage'] == 'try 1'
    assert result == 3


def test_a_step_that_never_succeeds_fails_the_execution(fn, durable):
    answer, result = run(fn, durable, {'do': 'retries', 'fails': 9, 'tries': 2})
    assert answer['FunctionError'] == 'Unhandled' and 'try 2' in result['errorMessage']
    e = fn.get_durable_execution(DurableExecutionArn=answer['DurableExecutionArn'])
    assert e['Status'] == 'FAILED' and 'try 2' in e['Error']['ErrorMessage']


def open_callback(fn, arn):
    return eventually(lambda: [e for e in history(fn, arn) if e['EventType'] == 'CallbackStarted'], 60)[0]['CallbackStartedDetails']['CallbackId']


def test_a_callback_from_outside(fn, durable):
    arn = start(fn, durable, {'do': 'callback'})
    callback = open_callback(fn, arn)
    eventually(lambda: 'InvocationCompleted' in kinds(fn, arn))
    assert fn.get_durable_execution(DurableExecutionArn=arn)['Status'] == 'RUNNING'
    fn.send_durable_execution_callback_success(CallbackId=callback, Result=b'"yes"')
    assert json.loads(ended(fn, arn)['Result']) == {'said': '"yes"'}
    refused('CallbackTimeoutException', fn.send_durable_execution_callback_success, CallbackId=callback, Result=b'"again"')
    refused('CallbackTimeoutException', fn.send_durable_execution_callback_heartbeat, CallbackId=callback)


def test_a_callback_that_fails_and_ones_that_come_too_late(fn, durable):
    failing, late, silent, lively = (start(fn, durable, {'do': 'callback', **more}) for more in ({}, {'timeout': 2}, {'timeout': 600, 'beat': 2}, {'timeout': 600, 'beat': 500}))
    fn.send_durable_execution_callback_heartbeat(CallbackId=open_callback(fn, lively))
    fn.send_durable_execution_callback_success(CallbackId=open_callback(fn, lively), Result=b'here')
    assert json.loads(ended(fn, lively)['Result']) == {'said': 'here'}
    fn.send_durable_execution_callback_failure(CallbackId=open_callback(fn, failing), Error={'ErrorType': 'Refused', 'ErrorMessage': 'no way'})
    assert 'no way' in json.loads(ended(fn, failing)['Result'])['message']
    for arn, kind in ((late, 'Callback.Timeout'), (silent, 'Callback.Heartbeat')):
        assert json.loads(ended(fn, arn)['Result'])['error'] == 'CallbackTimeoutError'
        assert [e['CallbackTimedOutDetails']['Error']['Payload']['ErrorType'] for e in history(fn, arn) if e['EventType'] == 'CallbackTimedOut'] == [kind]
        refused('CallbackTimeoutException', fn.send_durable_execution_callback_failure, CallbackId=open_callback(fn, arn))
    refused('ResourceNotFoundException', fn.send_durable_execution_callback_success, CallbackId='bm90aGluZzp0aGVyZQ==')


def test_another_function_is_invoked(fn, durable, made):
    made('durable-plain', 'app.plain', durable=False)
    answer, result = run(fn, durable, {'do': 'chain', 'function': 'durable-plain', 'payload': {'x': 1}})
    assert result == {'other': {'plain': {'x': 1}}}
    said = kinds(fn, answer['DurableExecutionArn'])
    assert [k for k in said if k.startswith('Chained')] == ['ChainedInvokeStarted', 'ChainedInvokeSucceeded'] and said.count('InvocationCompleted') == 2
    assert 'plain failed' in run(fn, durable, {'do': 'chain', 'function': 'durable-plain', 'payload': {'fail': True}})[1]['message']
    assert run(fn, durable, {'do': 'chain', 'function': 'no-such-durable-one', 'payload': {}})[1]['type'] == 'ResourceNotFoundException'


def test_another_durable_function_is_invoked(fn, durable):
    result = run(fn, durable, {'do': 'chain', 'function': durable + ':$LATEST', 'payload': {'do': 'steps', 'n': 4}})[1]
    assert result == {'other': {'a': 5, 'b': 10}}
    assert 'unqualified' in run(fn, durable, {'do': 'chain', 'function': durable, 'payload': {}})[1]['message']


def test_map_parallel_child_contexts_and_a_condition(fn, durable):
    answer, result = run(fn, durable, {'do': 'tour', 'list': [1, 2, 3]})
    assert result == {'child': 'inside', 'squares': [1, 4, 9], 'both': ['left', 'right']}
    subtypes = {e.get('SubType') for e in history(fn, answer['DurableExecutionArn'])}
    assert {'Map', 'MapIteration', 'Parallel', 'ParallelBranch', 'RunInChildContext', 'Wait', 'Step'} <= subtypes
    assert run(fn, durable, {'do': 'condition'})[1] == 3


def test_an_error_of_the_function(fn, durable):
    answer, result = run(fn, durable, {'do': 'fail'})
    assert answer['FunctionError'] == 'Unhandled' and result['errorType'] == 'KeyError'
    assert kinds(fn, answer['DurableExecutionArn'])[-1] == 'ExecutionFailed'


def test_state_of_many_pages(fn, durable):
    arn = start(fn, durable, {'do': 'many', 'steps': 30, 'bytes': 200000})       # 6 MB: more than an invocation carries
    assert ended(fn, arn, 90)['Status'] == 'SUCCEEDED'
    events = history(fn, arn, PaginationConfig={'PageSize': 7})
    assert [e['EventId'] for e in events] == list(range(1, len(events) + 1))
    back = history(fn, arn, ReverseOrder=True, IncludeExecutionData=False, PaginationConfig={'PageSize': 11})
    assert [e['EventId'] for e in back] == [e['EventId'] for e in reversed(events)]
    assert next(e for e in back if e['EventType'] == 'StepSucceeded')['StepSucceededDetails']['Result'] == {'Truncated': True}


JS = os.path.join(TOP, 'build', 'durable-js')
SCRIPT = """
import { withDurableExecution } from '@aws/durable-execution-sdk-js';
export const handler = withDurableExecution(async (event, ctx) => {
    const one = await ctx.step('one', async () => event.n + 1);
    await ctx.wait('nap', { seconds: 1 });
    const parts = await ctx.map('squares', [1, 2, 3], async (c, item) => await c.step('square', async () => item * item));
    const said = await ctx.waitForCallback('approval', async () => {}, { timeout: { minutes: 5 } });
    return { one, squares: parts.getResults(), said };
});
"""


@pytest.mark.skipif(not os.path.isdir(JS), reason='no npm to fetch the SDK for JavaScript with')
def test_the_sdk_for_javascript(fn):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as z:
        z.writestr('index.mjs', SCRIPT)
        for folder, _, files in os.walk(os.path.join(JS, 'node_modules')):
            for f in files:
                if f.endswith(('.js', '.mjs', '.cjs', '.json')):
                    z.write(os.path.join(folder, f), os.path.relpath(os.path.join(folder, f), JS))
    fn.create_function(FunctionName='durable-js', Runtime='nodejs20.x', Role=ROLE, Handler='index.handler', Code={'ZipFile': out.getvalue()}, MemorySize=256, Timeout=60,
                       DurableConfig={'ExecutionTimeout': 600})
    try:
        arn = start(fn, 'durable-js', {'n': 1})
        callback = open_callback(fn, arn)
        fn.send_durable_execution_callback_success(CallbackId=callback, Result=b'"yes"')
        e = ended(fn, arn)
        assert (e['Status'], e.get('Error')) == ('SUCCEEDED', None)
        assert json.loads(e['Result']) == {'one': 2, 'squares': [1, 4, 9], 'said': '"yes"'}
    finally:
        fn.delete_function(FunctionName='durable-js')


# ---- the life of an execution ----

def test_kill_9_of_the_gateway_while_executions_wait(fn, tandem, durable):
    arn = start(fn, durable, {'do': 'steps', 'n': 5, 'wait': 8})
    waiting = open_callback(fn, called := start(fn, durable, {'do': 'callback'}))
    eventually(lambda: 'InvocationCompleted' in kinds(fn, arn) and 'InvocationCompleted' in kinds(fn, called))
    tandem.kill('gateway')
    eventually(lambda: fn.get_durable_execution(DurableExecutionArn=arn)['Status'] in ('RUNNING', 'SUCCEEDED'))
    eventually(lambda: fn.send_durable_execution_callback_success(CallbackId=waiting, Result=b'late'), every=0.5)
    assert json.loads(ended(fn, arn)['Result']) == {'a': 6, 'b': 12}
    assert json.loads(ended(fn, called)['Result']) == {'said': 'late'}
    assert kinds(fn, arn).count('StepSucceeded') == 2                                   # the first step was not run again


def test_a_name_is_started_once(fn, durable):
    name = 'once-' + uuid.uuid4().hex[:8]
    first = start(fn, durable, {'do': 'steps', 'n': 1}, DurableExecutionName=name)
    assert f'/durable-execution/{name}/' in first
    assert start(fn, durable, {'do': 'steps', 'n': 1}, DurableExecutionName=name) == first
    refused('DurableExecutionAlreadyStartedException', start, fn, durable, {'do': 'steps', 'n': 2}, DurableExecutionName=name)
    answer, result = run(fn, durable, {'do': 'steps', 'n': 1}, DurableExecutionName=name)   # waits for the one that runs
    assert answer['DurableExecutionArn'] == first and result == {'a': 2, 'b': 4}
    found = fn.list_durable_executions_by_function(FunctionName=durable, DurableExecutionName=name)['DurableExecutions']
    assert [(e['DurableExecutionArn'], e['Status']) for e in found] == [(first, 'SUCCEEDED')]


def test_stop_and_delete(fn, durable):
    arn = start(fn, durable, {'do': 'callback'})
    callback = open_callback(fn, arn)
    refused('ResourceConflictException', fn.delete_durable_execution, DurableExecutionArn=arn)
    assert fn.stop_durable_execution(DurableExecutionArn=arn, Error={'ErrorType': 'Enough', 'ErrorMessage': 'of it'})['StopTimestamp']
    e = fn.get_durable_execution(DurableExecutionArn=arn)
    assert e['Status'] == 'STOPPED' and e['Error'] == {'ErrorType': 'Enough', 'ErrorMessage': 'of it'}
    refused('CallbackTimeoutException', fn.send_durable_execution_callback_success, CallbackId=callback)
    eventually(lambda: fn.delete_durable_execution(DurableExecutionArn=arn)['DeletionRequestTimestamp'])
    refused('ResourceNotFoundException', fn.get_durable_execution, DurableExecutionArn=arn)


def test_pause_and_resume(fn, durable):
    arn = start(fn, durable, {'do': 'steps', 'n': 1, 'wait': 10})
    eventually(lambda: 'InvocationCompleted' in kinds(fn, arn))
    fn.pause_durable_execution(DurableExecutionArn=arn, Reason='look first', ClientToken='t1')
    fn.pause_durable_execution(DurableExecutionArn=arn, Reason='look first', ClientToken='t1')
    refused('ResourceConflictException', fn.pause_durable_execution, DurableExecutionArn=arn)
    e = fn.get_durable_execution(DurableExecutionArn=arn)
    assert e['Status'] == 'PAUSED' and e['PauseDetails']['Reason'] == 'look first' and e['PauseDetails']['ExecutionTimeoutPaused']
    eventually(lambda: 'WaitSucceeded' in kinds(fn, arn))                                # time goes on, the function is not invoked
    assert kinds(fn, arn).count('InvocationCompleted') == 1
    assert fn.list_durable_executions_by_function(FunctionName=durable, Statuses=['PAUSED'])['DurableExecutions'][0]['DurableExecutionArn'] == arn
    fn.resume_durable_execution(DurableExecutionArn=arn)
    assert json.loads(ended(fn, arn)['Result']) == {'a': 2, 'b': 4}
    assert {'ExecutionPaused', 'ExecutionResumed'} <= set(kinds(fn, arn))
    refused('ResourceConflictException', fn.resume_durable_execution, DurableExecutionArn=arn)


def test_an_execution_has_its_time(fn, made):
    name = made('durable-brief', durable={'ExecutionTimeout': 2})
    arn = start(fn, name, {'do': 'callback'})
    e = ended(fn, arn)
    assert e['Status'] == 'TIMED_OUT' and kinds(fn, arn)[-1] == 'ExecutionTimedOut'
    assert e['DurableConfig']['RetentionPeriodInDays'] == 14
    assert 'FunctionError' in run(fn, name, {'do': 'callback'})[0]


def test_lists_page_by_page(fn, made):
    name = made('durable-listed')
    arns = [start(fn, name, {'do': 'fail', 'i': i}) for i in range(5)]
    for arn in arns:
        ended(fn, arn)
    def pages(**more):
        return [e['DurableExecutionArn'] for p in fn.get_paginator('list_durable_executions_by_function').paginate(FunctionName=name, PaginationConfig={'PageSize': 2}, **more)
                for e in p['DurableExecutions']]
    assert pages() == arns[::-1] and pages(ReverseOrder=True) == arns
    assert pages(Statuses=['FAILED'], Qualifier='$LATEST') == arns[::-1] and pages(Statuses=['RUNNING']) == []
    assert pages(StartedAfter=fn.get_durable_execution(DurableExecutionArn=arns[-1])['EndTimestamp']) == []
    refused('InvalidParameterValueException', fn.list_durable_executions_by_function, FunctionName=name, Statuses=['RUNNING', 'FAILED'])
    refused('InvalidParameterValueException', fn.list_durable_executions_by_function, FunctionName=name, Marker='bogus')
    refused('ResourceNotFoundException', fn.list_durable_executions_by_function, FunctionName='no-such-durable-one')


def test_an_execution_stays_with_its_version(fn, made):
    name = made('durable-versions')
    fn.publish_version(FunctionName=name)
    fn.create_alias(FunctionName=name, Name='live', FunctionVersion='1')
    arn = start(fn, name, {'do': 'steps', 'n': 1, 'wait': 2}, qualifier='live')
    assert f':function:{name}:1/durable-execution/' in arn
    fn.update_function_code(FunctionName=name, ZipFile=zipped('handler = None'))
    assert json.loads(ended(fn, arn)['Result']) == {'a': 2, 'b': 4}
    assert [e['DurableExecutionArn'] for e in fn.list_durable_executions_by_function(FunctionName=name, Qualifier='live')['DurableExecutions']] == [arn]


# ---- what is refused ----

def test_who_names_no_version_and_who_waits_too_long(fn, durable, made):
    assert 'unqualified ARN' in refused('InvalidParameterValueException', fn.invoke, FunctionName=durable, Payload='{}')
    name = made('durable-long', durable={'ExecutionTimeout': 901})
    assert 'greater than 15 minutes' in refused('InvalidParameterValueException', fn.invoke, FunctionName=name, Qualifier='$LATEST', Payload='{}')
    assert fn.invoke(FunctionName=name, Qualifier='$LATEST', InvocationType='DryRun', Payload='{}')['StatusCode'] == 204
    refused('InvalidParameterValueException', fn.update_function_configuration, FunctionName=made('durable-not', 'app.plain', durable=False),
            DurableConfig={'ExecutionTimeout': 5})
    assert fn.update_function_configuration(FunctionName=name, DurableConfig={'ExecutionTimeout': 30})['DurableConfig'] == {
        'ExecutionTimeout': 30, 'RetentionPeriodInDays': 14}


@pytest.mark.parametrize('output, message', [
    ({'Status': 'MAYBE'}, 'Invalid Status in invocation output.'),
    ({'Status': 'FAILED', 'Result': '1'}, 'Cannot provide a Result for FAILED status.'),
    ({'Status': 'SUCCEEDED', 'Error': {'ErrorMessage': 'x'}}, 'Cannot provide an Error for SUCCEEDED status.'),
    ({'Status': 'PENDING'}, 'Cannot return PENDING status with no pending operations.')])
def test_odd_answers_of_a_function(fn, made, output, message):
    name = 'durable-odd'
    try:
        fn.get_function(FunctionName=name)
    except ClientError:
        made(name, 'app.odd')
    arn = start(fn, name, output)
    e = ended(fn, arn)
    assert e['Status'] == 'FAILED' and e['Error'] == {'ErrorType': 'InvalidParameterValueException', 'ErrorMessage': message}


def test_checkpoints_are_in_order(fn, made):
    """By hand: the first token of an invocation, and what may not be said with it."""
    name = made('durable-by-hand', 'app.by_hand', code='''
import json, boto3
def by_hand(event, context):
    fn, arn, token, said = boto3.client('lambda'), event['DurableExecutionArn'], event['CheckpointToken'], []
    def send(token, *updates, **more):
        try:
            return fn.checkpoint_durable_execution(DurableExecutionArn=arn, CheckpointToken=token, Updates=list(updates), **more)
        except Exception as e:
            said.append(e.response['Error']['Code'] + ': ' + e.response['Error']['Message'])
    step = {'Id': 's1', 'Type': 'STEP', 'Action': 'START'}
    send(token, {'Id': 'w', 'Type': 'WAIT', 'Action': 'SUCCEED'})
    send(token, {'Id': 'c', 'Type': 'STEP', 'Action': 'START', 'ParentId': 'nobody'})
    send(token, step, step)
    first = send(token, step, ClientToken='mine')
    same = send(token, step, ClientToken='mine')
    send(token, {'Id': 's2', 'Type': 'STEP', 'Action': 'START'})
    token = first['CheckpointToken']
    send(token, {'Id': 's1', 'Type': 'WAIT', 'Action': 'START', 'WaitOptions': {'WaitSeconds': 1}})
    send(token, {'Id': 's1', 'Type': 'STEP', 'Action': 'FAIL', 'Payload': 'x'})
    state = fn.get_durable_execution_state(DurableExecutionArn=arn, CheckpointToken=token)
    said.append([o['Id'] for o in state['Operations']][1:])
    said.append(first['CheckpointToken'] == same['CheckpointToken'] and first['NewExecutionState']['Operations'][0]['Id'] == 's1')
    return {'Status': 'SUCCEEDED', 'Result': json.dumps(said)}
''')
    assert run(fn, name, {})[1] == [
        'InvalidParameterValueException: Invalid action for the given operation type.', 'InvalidParameterValueException: Invalid parent operation id.',
        'InvalidParameterValueException: Cannot checkpoint multiple operations with the same ID.', 'InvalidParameterValueException: Invalid checkpoint token',
        'InvalidParameterValueException: Inconsistent operation type.', 'InvalidParameterValueException: Cannot provide a Payload for FAIL action.', ['s1'], True]


def test_rights(tandem, fn, durable):
    iam = tandem.boto('iam')
    arn = start(fn, durable, {'do': 'callback'})
    user = 'durable-' + uuid.uuid4().hex[:6]
    iam.create_user(UserName=user)
    key = iam.create_access_key(UserName=user)['AccessKey']
    try:
        import boto3
        his = boto3.client('lambda', endpoint_url=tandem.status['aws'], region_name='us-east-1', aws_access_key_id=key['AccessKeyId'], aws_secret_access_key=key['SecretAccessKey'])
        refused('AccessDeniedException', his.get_durable_execution, DurableExecutionArn=arn)
        iam.put_user_policy(UserName=user, PolicyName='p', PolicyDocument=json.dumps({'Version': '2012-10-17', 'Statement': [
            {'Effect': 'Allow', 'Action': ['lambda:GetDurableExecution', 'lambda:SendDurableExecutionCallback*'], 'Resource': f'arn:aws:lambda:*:*:function:{durable}:*'}]}))
        eventually(lambda: his.get_durable_execution(DurableExecutionArn=arn)['Status'] == 'RUNNING')
        refused('AccessDeniedException', his.stop_durable_execution, DurableExecutionArn=arn)
        his.send_durable_execution_callback_success(CallbackId=open_callback(fn, arn), Result=b'1')
        assert ended(fn, arn)['Status'] == 'SUCCEEDED'
    finally:
        iam.delete_access_key(UserName=user, AccessKeyId=key['AccessKeyId'])
        if iam.list_user_policies(UserName=user)['PolicyNames']:
            iam.delete_user_policy(UserName=user, PolicyName='p')
        iam.delete_user(UserName=user)


def test_scaling_is_of_rented_instances(fn, durable):
    fn.publish_version(FunctionName=durable)
    refused('InvalidParameterValueException', fn.get_function_scaling_config, FunctionName=durable, Qualifier='1')
    refused('InvalidParameterValueException', fn.put_function_scaling_config, FunctionName=durable, Qualifier='1', FunctionScalingConfig={'MinExecutionEnvironments': 1})
    refused('ResourceNotFoundException', fn.get_function_scaling_config, FunctionName='no-such-durable-one', Qualifier='1')
