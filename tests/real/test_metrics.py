"""CloudWatch metrics through an unmodified boto3 (JSON), the AWS CLI, and by hand as other SDKs speak (QUERY, CBOR)."""
import datetime, json, struct, urllib.error, urllib.request

import pytest

from conftest import eventually
from test_lambda import create, fn, refused, zipped  # noqa: F401 (fn is a fixture)
from test_logs import aws

CODE = 'import time\ndef handler(e, c):\n    time.sleep(e.get("s", 0))\n    if e.get("fail"): raise ValueError("asked to")\n    return 1\n'


@pytest.fixture(scope='module')
def cw(tandem):
    return tandem.boto('cloudwatch')


def span(minutes=10):
    now = datetime.datetime.now(datetime.timezone.utc)
    return dict(StartTime=now - datetime.timedelta(minutes=minutes), EndTime=now + datetime.timedelta(minutes=1))


def stats(cw, metric, dims, *which, ns='AWS/Lambda', period=3600, **more):
    got = cw.get_metric_statistics(Namespace=ns, MetricName=metric, Dimensions=[{'Name': k, 'Value': v} for k, v in dims.items()], Period=period,
                                   Statistics=list(which), **span(), **more)
    return got['Datapoints']


@pytest.fixture(scope='module')
def measured(fn):
    create(fn, 'Measured', code=zipped(CODE), Publish=True, Timeout=60)
    fn.create_alias(FunctionName='Measured', Name='live', FunctionVersion='1')
    for event in ({}, {'s': 0.1}, {'fail': True}):
        fn.invoke(FunctionName='Measured', Payload=json.dumps(event))
    fn.invoke(FunctionName='Measured:live', Payload='{}')
    fn.put_function_concurrency(FunctionName='Measured', ReservedConcurrentExecutions=0)
    for _ in range(2):
        refused('TooManyRequestsException', 429, fn.invoke, FunctionName='Measured')
    fn.delete_function_concurrency(FunctionName='Measured')
    return 'Measured'


def total(points, what='Sum'):
    return sum(p[what] for p in points)


def test_metrics_of_a_function(cw, measured):
    by = {'FunctionName': measured}
    assert total(stats(cw, 'Invocations', by, 'Sum')) == 4
    assert total(stats(cw, 'Errors', by, 'Sum')) == 1
    assert total(stats(cw, 'Throttles', by, 'Sum')) >= 2
    points = stats(cw, 'Duration', by, 'SampleCount', 'Average', 'Maximum', 'Minimum')
    assert total(points, 'SampleCount') == 4 and 100 <= max(p['Maximum'] for p in points) < 60000 and points[0]['Unit'] == 'Milliseconds'
    assert max(p['Maximum'] for p in stats(cw, 'ConcurrentExecutions', by, 'Maximum')) >= 1
    assert total(stats(cw, 'Invocations', {**by, 'Resource': 'Measured'}, 'Sum')) == 3
    assert total(stats(cw, 'Invocations', {**by, 'Resource': 'Measured:1'}, 'Sum')) == 1
    assert total(stats(cw, 'Invocations', {**by, 'Resource': 'Measured:live'}, 'Sum')) == 1
    assert stats(cw, 'Invocations', {'FunctionName': 'nobody'}, 'Sum') == []
    assert total(stats(cw, 'Invocations', {}, 'Sum')) >= 4
    p90 = cw.get_metric_statistics(Namespace='AWS/Lambda', MetricName='Duration', Dimensions=[{'Name': 'FunctionName', 'Value': measured}], Period=3600,
                                   ExtendedStatistics=['p90'], **span())['Datapoints']
    assert max(p['ExtendedStatistics']['p90'] for p in p90) > 80


def query(id, metric, dims, stat, period=60, ns='AWS/Lambda'):
    return {'Id': id, 'MetricStat': {'Metric': {'Namespace': ns, 'MetricName': metric, 'Dimensions': [{'Name': k, 'Value': v} for k, v in dims.items()]},
                                     'Period': period, 'Stat': stat}}


def test_get_metric_data(cw, measured):
    got = cw.get_metric_data(MetricDataQueries=[query('a', 'Invocations', {'FunctionName': measured}, 'Sum'),
                                                query('b', 'Duration', {'FunctionName': measured}, 'p50'),
                                                query('c', 'Nothing', {'FunctionName': measured}, 'Sum')], **span())['MetricDataResults']
    assert [g['Id'] for g in got] == ['a', 'b', 'c'] and sum(got[0]['Values']) == 4 and got[2]['Values'] == []
    assert got[0]['StatusCode'] == 'Complete' and all(t.second == 0 for t in got[0]['Timestamps'])
    refused('InvalidParameterValue', 400, cw.get_metric_data, MetricDataQueries=[query('a', 'Errors', {}, 'Most')], **span())
    refused('InvalidParameterCombination', 400, cw.get_metric_statistics, Namespace='AWS/Lambda', MetricName='Errors', Period=60, Statistics=['Sum'], **span(3000))


def test_list_metrics(cw, measured):
    found = [m for p in cw.get_paginator('list_metrics').paginate(Namespace='AWS/Lambda', Dimensions=[{'Name': 'FunctionName', 'Value': measured}]) for m in p['Metrics']]
    assert {m['MetricName'] for m in found} == {'Invocations', 'Errors', 'Throttles', 'Duration', 'ConcurrentExecutions'}
    assert {d['Value'] for m in found for d in m['Dimensions'] if d['Name'] == 'Resource'} == {'Measured', 'Measured:1', 'Measured:live'}


def test_put_and_read_own(tandem, cw):
    cw.put_metric_data(Namespace='Own', MetricData=[
        {'MetricName': 'Sold', 'Dimensions': [{'Name': 'Shop', 'Value': 'a'}], 'Value': 3},
        {'MetricName': 'Sold', 'Dimensions': [{'Name': 'Shop', 'Value': 'a'}], 'Values': [1, 2], 'Counts': [4, 1]},
        {'MetricName': 'Sold', 'Dimensions': [{'Name': 'Shop', 'Value': 'b'}], 'StatisticValues': {'SampleCount': 2, 'Sum': 10, 'Minimum': 1, 'Maximum': 9}}])
    assert total(stats(cw, 'Sold', {'Shop': 'a'}, 'Sum', ns='Own')) == 9
    b = stats(cw, 'Sold', {'Shop': 'b'}, 'Average', 'Maximum', ns='Own')
    assert (b[0]['Average'], b[0]['Maximum']) == (5, 9)
    big = [{'MetricName': 'Big' + 'x' * 150, 'Dimensions': [{'Name': 'n', 'Value': str(n)}], 'Value': n} for n in range(200)]
    cw.put_metric_data(Namespace='Own', MetricData=big)                   # boto3 packs what is as long as this
    assert total(stats(cw, 'Big' + 'x' * 150, {'n': '7'}, 'Sum', ns='Own')) == 7
    refused('InvalidParameterValue', 400, cw.put_metric_data, Namespace='AWS/Own', MetricData=[{'MetricName': 'x', 'Value': 1}])
    refused('NotImplemented', 501, cw.describe_alarms)
    tandem.kill('gateway')                                               # what was acknowledged is there in the next life
    assert eventually(lambda: total(stats(cw, 'Sold', {'Shop': 'a'}, 'Sum', ns='Own')) == 9)
    assert {m['MetricName'][:4] for m in cw.list_metrics(Namespace='Own')['Metrics']} == {'Sold', 'Bigx'}


def test_aws_cli(tandem, measured):
    start, end = (t.strftime('%Y-%m-%dT%H:%M:%SZ') for t in span().values())
    got = json.loads(aws(tandem, 'cloudwatch', 'get-metric-statistics', '--namespace', 'AWS/Lambda', '--metric-name', 'Errors', '--dimensions',
                         f'Name=FunctionName,Value={measured}', '--start-time', start, '--end-time', end, '--period', '3600', '--statistics', 'Sum').stdout)
    assert got['Label'] == 'Errors'


def signed(tandem, headers, body, path='/', key=None):
    import botocore.auth, botocore.awsrequest, botocore.credentials
    tandem.boto('sts')
    r = botocore.awsrequest.AWSRequest('POST', tandem.status['aws'].rstrip('/') + path, headers=headers, data=body)
    key = key or tandem.key
    botocore.auth.SigV4Auth(botocore.credentials.Credentials(key['AccessKeyId'], key['SecretAccessKey']), 'monitoring', 'us-east-1').add_auth(r)
    try:
        return urllib.request.urlopen(urllib.request.Request(r.url, body, dict(r.headers), method='POST'), timeout=90)
    except urllib.error.HTTPError as e:
        return e


def test_other_forms(tandem, fn, cw, measured):
    fn.invoke(FunctionName=measured, Payload='{}')                         # (a kill takes the minute at hand)
    start, end = (t.strftime('%Y-%m-%dT%H:%M:%SZ') for t in span().values())
    form = (f'Action=GetMetricStatistics&Version=2010-08-01&Namespace=AWS%2FLambda&MetricName=Invocations&Dimensions.member.1.Name=FunctionName'
            f'&Dimensions.member.1.Value={measured}&StartTime={start}&EndTime={end}&Period=3600&Statistics.member.1=SampleCount').encode()
    text = signed(tandem, {'content-type': 'application/x-www-form-urlencoded'}, form).read().decode()
    assert '<GetMetricStatisticsResult><Label>Invocations</Label><Datapoints><member><Timestamp>20' in text and '<Unit>Count</Unit>' in text, text
    bad = signed(tandem, {'content-type': 'application/x-www-form-urlencoded'}, b'Action=GetMetricStatistics&Namespace=x')
    assert bad.status == 400 and b'<Code>MissingParameter</Code>' in bad.read()

    def text_(s):
        return bytes([0x60 + len(s)]) + s.encode() if len(s) < 24 else bytes([0x78, len(s)]) + s.encode()
    body = b'\xa1' + text_('Namespace') + text_('AWS/Lambda')
    headers = {'content-type': 'application/cbor', 'smithy-protocol': 'rpc-v2-cbor', 'accept': 'application/cbor'}
    answer = signed(tandem, headers, body, '/service/GraniteServiceVersion20100801/operation/ListMetrics')
    got = answer.read()
    assert answer.status == 200 and answer.headers['smithy-protocol'] == 'rpc-v2-cbor' and text_('Invocations') in got and got[0] >> 5 == 5
    body = (b'\xbf' + text_('Namespace') + text_('AWS/Lambda') + text_('MetricName') + text_('Errors') + text_('Period') + b'\x19\x0e\x10' + text_('Statistics') +
            b'\x9f' + text_('Sum') + b'\xff' + text_('StartTime') + b'\xc1\xfb' + struct.pack('>d', span()['StartTime'].timestamp()) +
            text_('EndTime') + b'\xc1\xfb' + struct.pack('>d', span()['EndTime'].timestamp()) + b'\xff')
    answer = signed(tandem, headers, body, '/service/GraniteServiceVersion20100801/operation/GetMetricStatistics')
    got = answer.read()
    assert answer.status == 200 and text_('Timestamp') + b'\xc1\xfb' in got
    broken = signed(tandem, headers, b'\xbf\x61', '/service/GraniteServiceVersion20100801/operation/GetMetricStatistics')
    assert broken.status == 400 and broken.headers['x-amzn-query-error'].endswith(';Sender')


def test_who_may(tandem, cw):
    iam = tandem.boto('iam')
    iam.create_user(UserName='looks')
    iam.put_user_policy(UserName='looks', PolicyName='p', PolicyDocument=json.dumps({'Version': '2012-10-17', 'Statement': [
        {'Effect': 'Allow', 'Action': 'cloudwatch:ListMetrics', 'Resource': '*'}]}))
    key = iam.create_access_key(UserName='looks')['AccessKey']
    headers = {'content-type': 'application/cbor', 'smithy-protocol': 'rpc-v2-cbor'}

    def status(operation, **more):
        return signed(tandem, {**headers, **more}, b'\xa0', '/service/GraniteServiceVersion20100801/operation/' + operation, key=key).status
    assert eventually(lambda: status('ListMetrics') == 200)
    assert status('GetMetricData') == 403
    assert status('GetMetricData', **{'x-amz-target': 'GraniteServiceVersion20100801.ListMetrics'}) == 403     # two names: the one that is run counts
