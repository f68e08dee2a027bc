"""CloudWatch Logs through an unmodified boto3 and the AWS CLI."""
import json, os, re, subprocess, sys, time, uuid

import pytest

from conftest import TOP, eventually
from test_lambda import create, fn, refused, zipped  # noqa: F401 (fn is a fixture)


@pytest.fixture(scope='module')
def logs(tandem):
    return tandem.boto('logs')


@pytest.fixture
def group(logs):
    name = '/own/' + uuid.uuid4().hex[:8]
    logs.create_log_group(logGroupName=name)
    yield name
    logs.delete_log_group(logGroupName=name)


def now():
    return int(time.time() * 1000)


def put(logs, group, stream, texts, at=None):
    at = at or now()
    return logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=[{'timestamp': at + n, 'message': t} for n, t in enumerate(texts)])


def aws(tandem, *words, check=True):
    tandem.boto('sts')                                # makes the key
    done = subprocess.run([sys.executable, '-m', 'awscli', '--endpoint-url', tandem.status['aws'], '--region', 'us-east-1', '--output', 'json', *words],
                          text=True, capture_output=True, timeout=60,
                          env={**os.environ, 'AWS_ACCESS_KEY_ID': tandem.key['AccessKeyId'], 'AWS_SECRET_ACCESS_KEY': tandem.key['SecretAccessKey'], 'HOME': tandem.state})
    assert not check or done.returncode == 0, done.stderr
    return done


def test_groups(tandem, logs, group):
    refused('ResourceAlreadyExistsException', 400, logs.create_log_group, logGroupName=group)
    refused('InvalidParameterException', 400, logs.create_log_group, logGroupName='a b')
    refused('ResourceNotFoundException', 400, logs.delete_log_group, logGroupName='/nobody')
    mine = logs.describe_log_groups(logGroupNamePrefix=group)['logGroups']
    assert [g['logGroupName'] for g in mine] == [group] and abs(mine[0]['creationTime'] - now()) < 60000
    assert mine[0]['arn'] == f'arn:aws:logs:us-east-1:000000000000:log-group:{group}:*' and 'retentionInDays' not in mine[0]
    logs.put_retention_policy(logGroupName=group, retentionInDays=7)
    assert logs.describe_log_groups(logGroupNamePrefix=group)['logGroups'][0]['retentionInDays'] == 7
    refused('InvalidParameterException', 400, logs.put_retention_policy, logGroupName=group, retentionInDays=8)
    logs.delete_retention_policy(logGroupName=group)
    assert 'retentionInDays' not in logs.describe_log_groups(logGroupNamePrefix=group)['logGroups'][0]
    arn = mine[0]['logGroupArn']
    logs.tag_resource(resourceArn=arn, tags={'team': 'a', 'x': 'y'})
    logs.tag_log_group(logGroupName=group, tags={'more': 'z'})
    logs.untag_resource(resourceArn=arn, tagKeys=['x'])
    assert logs.list_tags_for_resource(resourceArn=arn)['tags'] == {'team': 'a', 'more': 'z'}
    assert logs.list_tags_log_group(logGroupName=group)['tags'] == {'team': 'a', 'more': 'z'}
    objects = [o for o in tandem.get('loggroups')['items'] if o['spec']['name'] == group]
    assert len(objects) == 1 and objects[0]['spec']['tags'] == {'team': 'a', 'more': 'z'}
    refused('NotImplementedException', 501, logs.put_metric_filter, logGroupName=group, filterName='f', filterPattern='x',
            metricTransformations=[{'metricName': 'm', 'metricNamespace': 'n', 'metricValue': '1'}])


def test_a_deleted_object_takes_its_group_along(tandem, logs):
    logs.create_log_group(logGroupName='/gone/by/kubectl')
    name = next(o['metadata']['name'] for o in tandem.get('loggroups')['items'] if o['spec']['name'] == '/gone/by/kubectl')
    tandem.kubectl('delete', 'loggroup', name)
    eventually(lambda: not logs.describe_log_groups(logGroupNamePrefix='/gone/by')['logGroups'], 10)
    tandem.kubectl('apply', '-f', '-', text=json.dumps({'apiVersion': 'tandem.dev/v1', 'kind': 'LogGroup', 'metadata': {'name': 'made'},
                                                        'spec': {'name': '/made/by/kubectl', 'retentionDays': 3}}))
    eventually(lambda: logs.describe_log_groups(logGroupNamePrefix='/made/by')['logGroups'][0]['retentionInDays'] == 3, 10)


def test_groups_in_pages(logs):
    names = [f'/pages/{n:02}' for n in range(7)]
    for n in names:
        logs.create_log_group(logGroupName=n)
    pages = list(logs.get_paginator('describe_log_groups').paginate(logGroupNamePrefix='/pages/', PaginationConfig={'PageSize': 3}))
    assert [g['logGroupName'] for p in pages for g in p['logGroups']] == names and len(pages) == 3
    for n in names:
        logs.delete_log_group(logGroupName=n)


def test_put_and_get(logs, group):
    refused('ResourceNotFoundException', 400, put, logs, group, 's', ['x'])
    logs.create_log_stream(logGroupName=group, logStreamName='s')
    refused('ResourceAlreadyExistsException', 400, logs.create_log_stream, logGroupName=group, logStreamName='s')
    at = now() - 1000
    empty = logs.get_log_events(logGroupName=group, logStreamName='s')
    assert empty['events'] == []
    put(logs, group, 's', [f'line {n}' for n in range(25)], at)
    late = logs.get_log_events(logGroupName=group, logStreamName='s', nextToken=empty['nextForwardToken'])
    assert len(late['events']) == 25                  # a token of an empty stream sees what comes
    first = logs.get_log_events(logGroupName=group, logStreamName='s', limit=10, startFromHead=True)
    assert [e['message'] for e in first['events']] == [f'line {n}' for n in range(10)] and first['events'][0]['timestamp'] == at
    second = logs.get_log_events(logGroupName=group, logStreamName='s', limit=10, nextToken=first['nextForwardToken'])
    third = logs.get_log_events(logGroupName=group, logStreamName='s', limit=10, nextToken=second['nextForwardToken'])
    assert [e['message'] for e in third['events']] == [f'line {n}' for n in range(20, 25)]
    end = logs.get_log_events(logGroupName=group, logStreamName='s', limit=10, nextToken=third['nextForwardToken'])
    assert end['events'] == [] and end['nextForwardToken'] == third['nextForwardToken']
    back = logs.get_log_events(logGroupName=group, logStreamName='s', limit=10, nextToken=third['nextBackwardToken'])
    assert [e['message'] for e in back['events']] == [f'line {n}' for n in range(10, 20)]
    tail = logs.get_log_events(logGroupName=group, logStreamName='s', limit=3)
    assert [e['message'] for e in tail['events']] == ['line 22', 'line 23', 'line 24']
    start = logs.get_log_events(logGroupName=group, logStreamName='s', nextToken=first['nextBackwardToken'])
    assert start['events'] == [] and start['nextBackwardToken'] == first['nextBackwardToken']
    ranged = logs.get_log_events(logGroupName=group, logStreamName='s', startTime=at + 5, endTime=at + 8, startFromHead=True)
    assert [e['message'] for e in ranged['events']] == ['line 5', 'line 6', 'line 7']
    refused('InvalidParameterException', 400, logs.get_log_events, logGroupName=group, logStreamName='s', nextToken='f/1/s')
    refused('InvalidParameterException', 400, logs.get_log_events, logGroupName=group, logStreamName='s', limit=10001)
    stream = logs.describe_log_streams(logGroupName=group)['logStreams'][0]
    assert (stream['firstEventTimestamp'], stream['lastEventTimestamp']) == (at, at + 24)
    logs.delete_log_stream(logGroupName=group, logStreamName='s')
    refused('ResourceNotFoundException', 400, logs.get_log_events, logGroupName=group, logStreamName='s')


def test_what_a_batch_may_be(logs, group):
    logs.create_log_stream(logGroupName=group, logStreamName='s')
    day = 86400000
    refused('InvalidParameterException', 400, logs.put_log_events, logGroupName=group, logStreamName='s',
            logEvents=[{'timestamp': now(), 'message': 'b'}, {'timestamp': now() - 5, 'message': 'a'}])
    refused('InvalidParameterException', 400, logs.put_log_events, logGroupName=group, logStreamName='s',
            logEvents=[{'timestamp': now() - 2 * day, 'message': 'b'}, {'timestamp': now(), 'message': 'a'}])
    refused('InvalidParameterException', 400, put, logs, group, 's', ['x' * 600000, 'y' * 600000])
    old = logs.put_log_events(logGroupName=group, logStreamName='s', logEvents=[{'timestamp': now() - 15 * day, 'message': 'old'}])
    assert old['rejectedLogEventsInfo'] == {'tooOldLogEventEndIndex': 1}
    new = logs.put_log_events(logGroupName=group, logStreamName='s', logEvents=[{'timestamp': now(), 'message': 'now'}, {'timestamp': now() + 3 * 3600000, 'message': 'new'}])
    assert new['rejectedLogEventsInfo'] == {'tooNewLogEventStartIndex': 1} and new['nextSequenceToken']
    assert [e['message'] for e in logs.filter_log_events(logGroupName=group)['events']] == ['now']


def test_filter(logs, group):
    for s in ('a/1', 'a/2', 'b/1'):
        logs.create_log_stream(logGroupName=group, logStreamName=s)
    at = now() - 5000
    put(logs, group, 'a/1', ['INFO start', json.dumps({'level': 'ERROR', 'ms': 120, 'user': {'id': 7}})], at)
    put(logs, group, 'a/2', ['ERROR code=500 "out of memory"', json.dumps({'level': 'INFO', 'ms': 20})], at + 100)
    put(logs, group, 'b/1', ['127.0.0.1 GET 404 12', '127.0.0.1 GET 200 5000', 'grüße'], at + 200)

    def found(pattern, **more):
        return [e['message'] for e in logs.filter_log_events(logGroupName=group, filterPattern=pattern, **more)['events']]
    assert len(found('')) == 7
    assert found('ERROR -memory') == [json.dumps({'level': 'ERROR', 'ms': 120, 'user': {'id': 7}})]
    assert found('"out of memory"') == ['ERROR code=500 "out of memory"']
    assert found('?start ?GET', startTime=at + 1) == ['127.0.0.1 GET 404 12', '127.0.0.1 GET 200 5000']
    assert len(found('{ $.level = "ERROR" && $.ms > 100 && $.user.id = 7 }')) == 1
    assert found('[ip, verb, status = 4*, bytes]') == ['127.0.0.1 GET 404 12']
    assert found('[ip, verb, status, bytes > 1000]') == ['127.0.0.1 GET 200 5000']
    assert found('grüße') == ['grüße'] and found('%GET [0-9]{3}%', logStreamNamePrefix='b/') == ['127.0.0.1 GET 404 12', '127.0.0.1 GET 200 5000']
    assert len(found('', logStreamNames=['a/1'])) == 2 and len(found('', logStreamNamePrefix='a/')) == 4
    assert len(found('', startTime=at, endTime=at + 100)) == 3          # the end counts
    refused('InvalidParameterException', 400, logs.filter_log_events, logGroupName=group, filterPattern='{ $.a = ')
    refused('ResourceNotFoundException', 400, logs.filter_log_events, logGroupName='/nobody')
    pages = list(logs.get_paginator('filter_log_events').paginate(logGroupName=group, PaginationConfig={'PageSize': 3}))
    events = [e for p in pages for e in p['events']]
    assert len(events) == 7 and len({e['eventId'] for e in events}) == 7 and [e['timestamp'] for e in events] == sorted(e['timestamp'] for e in events)
    times = logs.describe_log_streams(logGroupName=group, orderBy='LastEventTime', descending=True)['logStreams']
    assert [s['logStreamName'] for s in times] == ['b/1', 'a/2', 'a/1']
    tested = logs.test_metric_filter(filterPattern='[a, b=2]', logEventMessages=['1 2', '1 3'])
    assert [m['eventNumber'] for m in tested['matches']] == [1]


PRINTS = '''
import logging
log = logging.getLogger()
log.setLevel(logging.INFO)
def handler(event, context):
    print('printed ' + str(event.get('n')))
    log.info('told %s', event.get('n'))
    log.debug('whispered')
    if event.get('much'):
        line = 'x' * 999
        for _ in range(event['much']):
            print(line)
        print('the end')
    if event.get('fail'):
        raise ValueError('asked to')
    return context.log_group_name
'''


def test_lines_of_a_function(tandem, fn, logs):
    create(fn, 'Prints_Much', code=zipped(PRINTS), Timeout=200)           # a name that no object can have
    assert json.loads(fn.invoke(FunctionName='Prints_Much', Payload='{"n": 1}')['Payload'].read()) == '/aws/lambda/Prints_Much'
    fn.invoke(FunctionName='Prints_Much', Payload='{"n": 2}')

    def events(**more):
        return logs.filter_log_events(logGroupName='/aws/lambda/Prints_Much', **more)['events']
    texts = [e['message'] for e in events()]
    assert [t.split('\t')[-1].strip() for t in texts if 'told' in t or 'printed' in t] == ['printed 1', 'told 1', 'printed 2', 'told 2']
    assert texts[0].startswith('INIT_START Runtime Version: python3.11') and re.match(r'START RequestId: [0-9a-f-]{36} Version: \$LATEST$', texts[1])
    assert any(t.startswith('END RequestId: ') for t in texts)
    assert any(re.match(r'REPORT RequestId: \S+\tDuration: [0-9.]+ ms\tBilled Duration: \d+ ms\tMemory Size: 128 MB\tMax Memory Used: \d+ MB\t', t) for t in texts)
    stream = events()[0]['logStreamName']
    assert re.match(r'\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}$', stream), stream
    assert eventually(lambda: [o for o in tandem.get('loggroups')['items'] if o['spec']['name'] == '/aws/lambda/Prints_Much'])
    logs.put_retention_policy(logGroupName='/aws/lambda/Prints_Much', retentionInDays=1)
    # gigabytes: bounded, told, and nobody else is held up
    create(fn, 'quiet', code=zipped('def handler(e, c):\n    return 1\n'))
    fn.invoke(FunctionName='quiet')
    began = time.time()
    many = fn.invoke(FunctionName='Prints_Much', Payload='{"much": 100000}', LogType='Tail')
    kept = (8 << 20) + int(time.time() - began) * (4 << 20)                # 4 MiB at once, 4 MiB a second, and what was on its way
    assert 'FunctionError' not in many
    lost = lambda: sum(int(re.search(r'(\d+) bytes', e['message'])[1]) for e in events(filterPattern='"are lost"'))
    eventually(lambda: lost() >= max(1, 100_000_000 - kept))
    # a deleted group begins anew with the next line
    logs.delete_log_group(logGroupName='/aws/lambda/Prints_Much')
    refused('ResourceNotFoundException', 400, events)
    fn.invoke(FunctionName='Prints_Much', Payload='{"n": 3}')
    eventually(lambda: any('printed 3' in e['message'] for e in events()))
    assert not any('printed 1' in e['message'] for e in events())


def test_json_format(fn, logs):
    made = create(fn, 'told-in-json', code=zipped(PRINTS), LoggingConfig={'LogFormat': 'JSON', 'ApplicationLogLevel': 'INFO', 'SystemLogLevel': 'DEBUG', 'LogGroup': '/own/json'})
    assert made['LoggingConfig'] == {'LogFormat': 'JSON', 'ApplicationLogLevel': 'INFO', 'SystemLogLevel': 'DEBUG', 'LogGroup': '/own/json'}
    answer = fn.invoke(FunctionName='told-in-json', Payload='{"n": 5}')
    id = answer['ResponseMetadata']['RequestId']
    texts = [e['message'] for e in logs.filter_log_events(logGroupName='/own/json')['events']]
    records = [json.loads(t) for t in texts if t.startswith('{')]
    assert [r['type'] for r in records if 'type' in r] == ['platform.initStart', 'platform.start', 'platform.runtimeDone', 'platform.report']
    report = next(r for r in records if r.get('type') == 'platform.report')['record']
    assert report['requestId'] == id and report['status'] == 'success' and report['metrics']['billedDurationMs'] >= 1
    told = next(r for r in records if r.get('message') == 'told 5')
    assert told['level'] == 'INFO' and told['requestId'] == id and told['logger'] == 'root'
    fn.update_function_configuration(FunctionName='told-in-json', LoggingConfig={'LogFormat': 'JSON', 'ApplicationLogLevel': 'ERROR', 'SystemLogLevel': 'WARN', 'LogGroup': '/own/json2'})
    fn.invoke(FunctionName='told-in-json', Payload='{"n": 6, "fail": true}')
    texts = [e['message'] for e in logs.filter_log_events(logGroupName='/own/json2')['events']]
    assert not any('told 6' in t for t in texts)
    records = [json.loads(t) for t in texts if t.startswith('{')]
    assert [r['type'] for r in records if 'type' in r] == ['platform.runtimeDone', 'platform.report']     # it failed: worth a warning
    assert next(r for r in records if r.get('errorType'))['errorMessage'] == 'asked to'


def test_logs_survive_a_killed_gateway(tandem, logs, group):
    logs.create_log_stream(logGroupName=group, logStreamName='s')
    put(logs, group, 's', ['kept'])
    tandem.kill('gateway')
    eventually(lambda: [e['message'] for e in logs.filter_log_events(logGroupName=group)['events']] == ['kept'])


def test_aws_cli(tandem, logs, group):
    logs.create_log_stream(logGroupName=group, logStreamName='s')
    put(logs, group, 's', ['one ERROR', 'two'])
    got = json.loads(aws(tandem, 'logs', 'filter-log-events', '--log-group-name', group, '--filter-pattern', 'ERROR').stdout)
    assert [e['message'] for e in got['events']] == ['one ERROR']
    assert json.loads(aws(tandem, 'logs', 'describe-log-groups', '--log-group-name-prefix', group).stdout)['logGroups'][0]['logGroupName'] == group
    done = aws(tandem, 'logs', 'get-log-events', '--log-group-name', '/nobody', '--log-stream-name', 'x', check=False)
    assert done.returncode and 'ResourceNotFoundException' in done.stderr
