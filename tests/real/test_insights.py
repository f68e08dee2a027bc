"""Logs Insights: queries over log groups, by boto3."""
import json, time, uuid

import pytest

from test_lambda import create, fn, zipped  # noqa: F401 (fn is a fixture)

T0 = 1_700_000_000_000


@pytest.fixture(scope='module')
def logs(tandem):
    return tandem.boto('logs')


@pytest.fixture(scope='module')
def group(logs):
    name = '/insights/' + uuid.uuid4().hex[:8]
    now = int(time.time() * 1000) - 600_000
    logs.create_log_group(logGroupName=name)
    logs.create_log_stream(logGroupName=name, logStreamName='one')
    events = [{'timestamp': now + i * 1000, 'message': json.dumps({'level': 'error' if i % 4 == 0 else 'info', 'ms': i, 'http': {'path': f'/p/{i % 3}'}})}
              for i in range(40)]
    events.append({'timestamp': now + 60_000, 'message': 'plain text with an Exception "quoted"'})
    logs.put_log_events(logGroupName=name, logStreamName='one', logEvents=events)
    yield name
    logs.delete_log_group(logGroupName=name)


def asked(logs, group, query, **more):
    """rows as maps, and the whole answer"""
    now = int(time.time())
    got = logs.get_query_results(queryId=logs.start_query(logGroupName=group, startTime=now - 3600, endTime=now + 60, queryString=query, **more)['queryId'])
    assert got['status'] == 'Complete'
    return [{c['field']: c['value'] for c in row} for row in got['results']], got


def test_fields_filter_sort_limit(logs, group):
    rows, got = asked(logs, group, 'fields @timestamp, @message | sort @timestamp desc | limit 2')
    assert [r['@message'][:5] for r in rows] == ['plain', '{"lev'] and all(r['@ptr'] for r in rows)
    assert rows[0]['@timestamp'] > rows[1]['@timestamp'] and len(rows[0]['@timestamp']) == 23
    rows, got = asked(logs, group, "fields ms, level as l\n# a comment\n| filter level = 'error' and ms >= 8 and not (ms in [12, 16] or http.path like /2$/)\n| sort ms asc")
    assert [(r['ms'], r['l']) for r in rows] == [('24', 'error'), ('28', 'error'), ('36', 'error')]
    assert got['statistics']['recordsScanned'] == 41 and got['statistics']['recordsMatched'] == 3
    assert [r['ms'] for r in asked(logs, group, 'fields ms | filter ispresent(ms) | sort ms desc | limit 3')[0]] == ['39', '38', '37']
    assert len(asked(logs, group, 'filter @message like "Exception" and @logStream = "one"')[0]) == 1
    assert asked(logs, group, 'fields ms | filter ispresent(ms) | sort @timestamp asc', limit=2)[0][1]['ms'] == '1'
    assert [set(r) for r in asked(logs, group, 'fields ms, level | display level | limit 2 | filter ms < 2')[0]] == [{'level', '@ptr'}] * 2


def test_the_latest_of_several_groups(logs, group):
    other, now = group + '/other', int(time.time() * 1000)
    logs.create_log_group(logGroupName=other)
    try:
        logs.create_log_stream(logGroupName=other, logStreamName='one')
        logs.put_log_events(logGroupName=other, logStreamName='one', logEvents=[{'timestamp': now - 10_000 + i, 'message': f'late {i}'} for i in range(3)])
        for names in ([group, other], [other, group]):
            got = logs.get_query_results(queryId=logs.start_query(logGroupNames=names, startTime=now // 1000 - 3600, endTime=2**63 - 1,
                                                                  queryString='fields @message | limit 4')['queryId'])
            assert got['status'] == 'Complete'
            assert [row[0]['value'][:6] for row in got['results']] == ['late 2', 'late 1', 'late 0', 'plain '], names
    finally:
        logs.delete_log_group(logGroupName=other)


def test_stats(logs, group):
    rows, _ = asked(logs, group, 'stats count(*) as n, sum(ms), avg(ms) as a, min(ms), max(ms) by level | sort n desc')
    assert rows[0] == {'level': 'info', 'n': '30', 'sum(ms)': '600', 'a': '20', 'min(ms)': '1', 'max(ms)': '39'}
    assert rows[1]['level'] == 'error' and rows[1]['n'] == '10' and rows[2] == {'n': '1'}
    bins, _ = asked(logs, group, 'filter ispresent(ms) | stats count(*) by bin(10s) as t | sort t asc')
    assert sum(int(b['count(*)']) for b in bins) == 40 and 4 <= len(bins) <= 5 and all(b['t'].endswith('0.000') for b in bins)
    assert asked(logs, group, 'stats count()')[0] == [{'count(*)': '41'}]


def test_lambdas_own_lines(logs, fn):
    create(fn, 'insightful')
    try:
        for _ in range(3):
            fn.invoke(FunctionName='insightful', Payload=b'{}')
        until = time.time() + 20
        while True:
            rows, _ = asked(logs, '/aws/lambda/insightful', 'filter @type = "REPORT" | stats count(*) as n, max(@duration) as d, max(@memorySize) as m')
            if rows and rows[0]['n'] == '3' or time.time() > until:
                break
            time.sleep(0.1)
        assert rows[0]['n'] == '3' and float(rows[0]['d']) > 0 and float(rows[0]['m']) == 128e6
        ids = asked(logs, '/aws/lambda/insightful', 'fields @requestId | filter @type = "START"')[0]
        assert len({r['@requestId'] for r in ids}) == 3
    finally:
        fn.delete_function(FunctionName='insightful')


@pytest.mark.parametrize('query', ['fields', 'nonsense x', 'filter a =', 'filter (a = 1', 'filter ' + '(' * 200 + 'a = 1', 'stats median(x)', 'limit 0', 'limit x',
                                   'filter a like /(/', 'fields a,', 'filter a = "x', 'stats count(*) by bin(0m)', 'fields ' + ','.join(f'f{i}' for i in range(60)),
                                   'stats count(*) | stats count(*)', 'parse @message "*" as x', '| |'])
def test_bad_queries(logs, group, query):
    with pytest.raises(logs.exceptions.MalformedQueryException):
        asked(logs, group, query)


def test_what_is_asked_of_whom(logs, group):
    now = int(time.time())
    with pytest.raises(logs.exceptions.ResourceNotFoundException):
        asked(logs, group + 'x', 'fields @message')
    with pytest.raises(logs.exceptions.ResourceNotFoundException):
        logs.get_query_results(queryId=str(uuid.uuid4()))
    with pytest.raises(logs.exceptions.MalformedQueryException):
        logs.start_query(logGroupName=group, startTime=now, endTime=now - 1, queryString='limit 1')
    ids = [logs.start_query(logGroupNames=[group], startTime=now - 3600, endTime=now, queryString=f'limit {i + 1}')['queryId'] for i in range(25)]
    kept = [q['queryId'] for q in logs.describe_queries(logGroupName=group)['queries']]
    assert set(ids[-10:]) <= set(kept) and len(kept) <= 20 and ids[0] not in kept
    assert logs.stop_query(queryId=ids[-1])['success'] is False                # it has ended
