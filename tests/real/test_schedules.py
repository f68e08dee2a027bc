"""Functions that are called at their times: EventBridge Scheduler and rules through an unmodified boto3, Schedule objects through kubectl."""
import datetime, json, os, time

import pytest

from conftest import eventually
from test_lambda import create, fn, refused, zipped  # noqa: F401 (fn is a fixture)

KEEP = 'import json\ndef handler(e, c):\n    open(f"/mnt/told/{c.function_name}-{c.aws_request_id}", "w").write(json.dumps(e))\n'
ROLE = 'arn:aws:iam::000000000000:role/scheduler'


def arn(name):
    return f'arn:aws:lambda:us-east-1:000000000000:function:{name}'


@pytest.fixture(scope='module')
def told(tandem):
    """Creates functions that write what they were called with into a bucket; told(name) reads what came."""
    s3, functions = tandem.boto('s3'), tandem.boto('lambda')
    s3.create_bucket(Bucket='told')

    def events(name):
        keys = [o['Key'] for o in s3.list_objects_v2(Bucket='told', Prefix=name + '-').get('Contents', [])]
        return [json.loads(s3.get_object(Bucket='told', Key=k)['Body'].read()) for k in keys]

    def make(name):
        create(functions, name, code=zipped(KEEP), FileSystemConfigs=[{'Arn': 'arn:aws:elasticfilesystem:us-east-1:000000000000:access-point/told',
                                                                       'LocalMountPath': '/mnt/told'}])
        return lambda: events(name)
    return make


def at(seconds):
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)


def test_once_and_then_gone(tandem, told):
    scheduler, events = tandem.boto('scheduler'), told('once')
    when = at(8).astimezone(datetime.timezone(datetime.timedelta(hours=9)))     # Tokyo has no summer time
    made = scheduler.create_schedule(Name='just_Once', ScheduleExpression=when.strftime('at(%Y-%m-%dT%H:%M:%S)'), ScheduleExpressionTimezone='Asia/Tokyo',
                                     FlexibleTimeWindow={'Mode': 'OFF'}, ActionAfterCompletion='DELETE',
                                     Target={'Arn': arn('once'), 'RoleArn': ROLE, 'Input': '{"n": 1, "at": "<aws.scheduler.scheduled-time>"}'})
    assert made['ScheduleArn'] == 'arn:aws:scheduler:us-east-1:000000000000:schedule/default/just_Once'
    got = scheduler.get_schedule(Name='just_Once')
    assert got['State'] == 'ENABLED' and got['ScheduleExpressionTimezone'] == 'Asia/Tokyo' and got['Target']['RoleArn'] == ROLE
    assert abs(got['CreationDate'].timestamp() - time.time()) < 300
    eventually(lambda: len(events()) == 1, 30)
    assert events() == [{'n': 1, 'at': when.astimezone(datetime.timezone.utc).strftime('%Y-%m-%dT%H:%M:%SZ')}]
    eventually(lambda: not scheduler.list_schedules(NamePrefix='just_')['Schedules'], 20)
    refused('ResourceNotFoundException', 404, scheduler.get_schedule, Name='just_Once')


def test_kubectl_sees_and_makes_the_same(tandem, told):
    events = told('hourly')
    tandem.kubectl('apply', '-f', '-', text=json.dumps({'apiVersion': 'tandem.dev/v1', 'kind': 'Schedule', 'metadata': {'name': 'hourly', 'namespace': 'default'},
                                                        'spec': {'expression': 'rate(1 hour)', 'target': {'function': 'hourly', 'input': '{"hello": "hour"}'}}}))
    eventually(lambda: events() == [{'hello': 'hour'}], 30)                     # a rate's first time is its start
    eventually(lambda: tandem.get('schedule', 'hourly')['status']['state'] == 'Active')
    one, = tandem.boto('scheduler').list_schedules(NamePrefix='hourly')['Schedules']
    assert one['Name'] == 'hourly' and one['Target']['Arn'] == arn('hourly')
    tandem.kubectl('patch', 'schedule', 'hourly', '--type=merge', '-p', '{"spec":{"expression":"rate(soon)"}}')
    eventually(lambda: tandem.get('schedule', 'hourly')['status']['state'] == 'Failed', 20)
    assert 'rate(5 minutes)' in tandem.get('schedule', 'hourly')['status']['reason']
    tandem.kubectl('delete', 'schedule', 'hourly')


def test_a_time_that_passed_while_it_was_down(tandem, told):
    events = told('late')
    scheduler = tandem.boto('scheduler')
    scheduler.create_schedule(Name='late', ScheduleExpression=at(6).strftime('at(%Y-%m-%dT%H:%M:%S)'), FlexibleTimeWindow={'Mode': 'OFF'},
                              Target={'Arn': arn('late'), 'RoleArn': ROLE})
    tandem.kill('gateway')
    eventually(lambda: len(events()) == 1, 40)
    event, = events()
    assert event['source'] == 'aws.scheduler' and event['resources'] == ['arn:aws:scheduler:us-east-1:000000000000:schedule/default/late']
    uid = tandem.get('schedule', 'late')['metadata']['uid']
    eventually(lambda: uid in open(os.path.join(tandem.state, 'queue', 'schedules.json')).read())      # it is written down that it was told
    tandem.kill('gateway')
    eventually(lambda: scheduler.get_schedule(Name='late')['State'] == 'ENABLED', 20)
    time.sleep(2)
    assert len(events()) == 1                                                   # and not told again
    scheduler.delete_schedule(Name='late')


def test_groups_and_what_is_wrong(tandem, fn):
    scheduler = tandem.boto('scheduler')
    good = {'Name': 'x', 'ScheduleExpression': 'rate(5 minutes)', 'FlexibleTimeWindow': {'Mode': 'FLEXIBLE', 'MaximumWindowInMinutes': 5},
            'Target': {'Arn': arn('none'), 'RoleArn': ROLE}, 'State': 'DISABLED'}
    refused('ResourceNotFoundException', 404, scheduler.create_schedule, **{**good, 'GroupName': 'team'})
    scheduler.create_schedule_group(Name='team', Tags=[{'Key': 'a', 'Value': 'b'}])
    refused('ConflictException', 409, scheduler.create_schedule_group, Name='team')
    scheduler.create_schedule(**{**good, 'GroupName': 'team'})
    scheduler.create_schedule(**good)
    refused('ConflictException', 409, scheduler.create_schedule, **good)
    assert {(s['GroupName'], s['Name']) for s in scheduler.list_schedules()['Schedules']} >= {('team', 'x'), ('default', 'x')}
    assert [s['GroupName'] for s in scheduler.list_schedules(GroupName='team')['Schedules']] == ['team']
    scheduler.update_schedule(**{**good, 'ScheduleExpression': 'cron(0 10 * * ? *)', 'Description': 'at ten', 'FlexibleTimeWindow': {'Mode': 'OFF'}})
    got = scheduler.get_schedule(Name='x')
    assert (got['ScheduleExpression'], got['Description'], got['FlexibleTimeWindow']) == ('cron(0 10 * * ? *)', 'at ten', {'Mode': 'OFF'})
    assert scheduler.get_schedule(Name='x', GroupName='team')['FlexibleTimeWindow']['MaximumWindowInMinutes'] == 5
    for wrong in ({'ScheduleExpression': 'rate(5 minute)'}, {'ScheduleExpressionTimezone': 'Mars/Base'}, {'Name': 'a b'},
                  {'Target': {'Arn': 'arn:aws:sqs:us-east-1:000000000000:q', 'RoleArn': ROLE}}):
        refused('ValidationException', 400, scheduler.create_schedule, **{**good, 'Name': 'y', **wrong})
    pages = scheduler.get_paginator('list_schedules').paginate(PaginationConfig={'PageSize': 1})
    assert sum(len(p['Schedules']) for p in pages) >= 2
    scheduler.delete_schedule_group(Name='team')
    refused('ResourceNotFoundException', 404, scheduler.get_schedule, Name='x', GroupName='team')
    scheduler.delete_schedule(Name='x')
    assert scheduler.list_tags_for_resource(ResourceArn='arn:aws:scheduler:us-east-1:000000000000:schedule-group/default')['Tags'] == []


def test_a_rule_calls_its_targets(tandem, told):
    events, second = tandem.boto('events'), told('second')
    first = told('first')
    rule = events.put_rule(Name='each.minute', ScheduleExpression='cron(* * * * ? *)', Description='d', Tags=[{'Key': 'k', 'Value': 'v'}])['RuleArn']
    assert rule == 'arn:aws:events:us-east-1:000000000000:rule/each.minute'
    done = events.put_targets(Rule='each.minute', Targets=[
        {'Id': '1', 'Arn': arn('first')},
        {'Id': '2', 'Arn': arn('second'), 'InputTransformer': {'InputPathsMap': {'when': '$.time', 'from': '$.source'},
                                                              'InputTemplate': '{"at": <when>, "says": "<from> says", "rule": <aws.events.rule-name>}'}},
        {'Id': '3', 'Arn': 'arn:aws:sqs:us-east-1:000000000000:q'}])
    assert done['FailedEntryCount'] == 1 and done['FailedEntries'][0]['TargetId'] == '3'
    assert [t['Id'] for t in events.list_targets_by_rule(Rule='each.minute')['Targets']] == ['1', '2']
    assert events.list_rule_names_by_target(TargetArn=arn('first'))['RuleNames'] == ['each.minute']
    assert events.list_tags_for_resource(ResourceARN=rule)['Tags'] == [{'Key': 'k', 'Value': 'v'}]
    assert events.describe_rule(Name='each.minute')['State'] == 'ENABLED'
    eventually(lambda: first() and second(), 150)
    event = first()[0]
    assert (event['source'], event['detail-type'], event['detail'], event['resources']) == ('aws.events', 'Scheduled Event', {}, [rule])
    eventually(lambda: {'at': event['time'], 'says': 'aws.events says', 'rule': 'each.minute'} in second())      # of that minute
    events.disable_rule(Name='each.minute')
    assert [r['State'] for r in events.list_rules(NamePrefix='each')['Rules']] == ['DISABLED']
    refused('ValidationException', 400, events.delete_rule, Name='each.minute')
    events.remove_targets(Rule='each.minute', Ids=['1', '2'])
    events.delete_rule(Name='each.minute')
    refused('ResourceNotFoundException', 400, events.describe_rule, Name='each.minute')
    refused('NotImplementedException', 400, events.put_rule, Name='p', EventPattern='{"source": ["x"]}')
    refused('ValidationException', 400, events.put_rule, Name='p', ScheduleExpression='rate(1 week)')
    refused('NotImplementedException', 501, events.put_events, Entries=[{'Source': 's', 'DetailType': 'd', 'Detail': '{}'}])
