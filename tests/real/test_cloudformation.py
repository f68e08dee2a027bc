"""CloudFormation as boto3 drives it: stacks, change sets, roll back, what depends on what."""
import json, os, re, subprocess, sys, uuid

import pytest
from botocore.exceptions import ClientError, WaiterError

from conftest import TOP, eventually

FAST = {'Delay': 0.1, 'MaxAttempts': 600}
ROLE = 'arn:aws:iam::000000000000:role/any'
TEMPLATE = f'''
AWSTemplateFormatVersion: '2010-09-09'
Description: a function and its bucket
Parameters:
  Who: {{Type: String, Default: world, AllowedPattern: '[a-z]+'}}
  Kept: {{Type: String, Default: 'no', AllowedValues: ['yes', 'no']}}
Conditions:
  IsKept: !Equals [!Ref Kept, 'yes']
Resources:
  Things:
    Type: AWS::S3::Bucket
  Other:
    Type: AWS::S3::Bucket
    Condition: IsKept
    DeletionPolicy: Retain
  Hello:
    Type: AWS::Lambda::Function
    Properties:
      Runtime: python3.11
      Handler: index.handler
      Role: {ROLE}
      Environment: {{Variables: {{WHO: !Ref Who, BUCKET: !Ref Things}}}}
      Code:
        ZipFile: |
          import os
          def handler(event, context):
              return f"hello {{os.environ['WHO']}}"
  Now:
    Type: AWS::Lambda::Alias
    Properties: {{FunctionName: !Ref Hello, Name: now, FunctionVersion: !GetAtt First.Version}}
  First:
    Type: AWS::Lambda::Version
    Properties: {{FunctionName: !Ref Hello}}
  Address:
    Type: AWS::Lambda::Url
    Properties: {{TargetFunctionArn: !GetAtt Hello.Arn, AuthType: NONE}}
Outputs:
  Arn: {{Value: !GetAtt Hello.Arn, Export: {{Name: !Sub '${{AWS::StackName}}-arn'}}}}
  Url: {{Value: !GetAtt Address.FunctionUrl}}
  Bucket: {{Value: !Ref Things}}
  Alias: {{Value: !Ref Now}}
  Text: {{Value: !Join ['/', [!Ref 'AWS::Region', !Select [1, !Split ['-', 'a-b-c']], !Sub '${{Who}}!']]}}
'''


@pytest.fixture(scope='module')
def cfn(tandem):
    return tandem.boto('cloudformation')


@pytest.fixture
def name(cfn):
    name = 'st-' + uuid.uuid4().hex[:8]
    yield name
    try:
        cfn.delete_stack(StackName=name)
        cfn.get_waiter('stack_delete_complete').wait(StackName=name, WaiterConfig=FAST)
    except (ClientError, WaiterError):
        pass


def outputs(cfn, name):
    return {o['OutputKey']: o['OutputValue'] for o in cfn.describe_stacks(StackName=name)['Stacks'][0].get('Outputs', [])}


def create(cfn, name, template, **more):
    answer = cfn.create_stack(StackName=name, TemplateBody=template if isinstance(template, str) else json.dumps(template), **more)
    cfn.get_waiter('stack_create_complete').wait(StackName=name, WaiterConfig=FAST)
    return answer


def test_a_stack_is_made_changed_and_deleted(tandem, cfn, name):
    create(cfn, name, TEMPLATE)
    out = outputs(cfn, name)
    assert out['Text'] == 'us-east-1/b/world!'
    function = out['Arn'].rsplit(':', 1)[1]
    assert function.startswith(name + '-Hello-')
    assert json.load(tandem.boto('lambda').invoke(FunctionName=function)['Payload']) == 'hello world'
    assert tandem.boto('s3').head_bucket(Bucket=out['Bucket'])
    events = cfn.describe_stack_events(StackName=name)['StackEvents']
    assert (events[0]['ResourceStatus'], events[-1]['ResourceStatus']) == ('CREATE_COMPLETE', 'CREATE_IN_PROGRESS')
    assert events[0]['ResourceType'] == 'AWS::CloudFormation::Stack'

    with pytest.raises(ClientError, match='No updates are to be performed'):
        cfn.update_stack(StackName=name, TemplateBody=TEMPLATE)
    cfn.update_stack(StackName=name, UsePreviousTemplate=True, Parameters=[{'ParameterKey': 'Who', 'ParameterValue': 'you'}])
    cfn.get_waiter('stack_update_complete').wait(StackName=name, WaiterConfig=FAST)
    assert json.load(tandem.boto('lambda').invoke(FunctionName=function)['Payload']) == 'hello you'

    cfn.delete_stack(StackName=name)
    cfn.get_waiter('stack_delete_complete').wait(StackName=name, WaiterConfig=FAST)
    with pytest.raises(ClientError, match='does not exist'):
        cfn.describe_stacks(StackName=name)
    with pytest.raises(ClientError, match='ResourceNotFound'):
        tandem.boto('lambda').get_function(FunctionName=function)
    with pytest.raises(ClientError):
        tandem.boto('s3').head_bucket(Bucket=out['Bucket'])


def bucket_stack(**resources):
    return {'Resources': {k: {'Type': 'AWS::S3::Bucket', **v} for k, v in resources.items()}}


def test_change_sets_say_what_they_would_do(cfn, name):
    first = json.dumps(bucket_stack(One={}, Two={'DependsOn': 'One'}))
    cfn.create_change_set(StackName=name, ChangeSetName='first', ChangeSetType='CREATE', TemplateBody=first,
                          Tags=[{'Key': 'team', 'Value': 'blue'}])
    cfn.get_waiter('change_set_create_complete').wait(StackName=name, ChangeSetName='first', WaiterConfig=FAST)
    assert cfn.describe_stacks(StackName=name)['Stacks'][0]['StackStatus'] == 'REVIEW_IN_PROGRESS'
    shown = cfn.describe_change_set(StackName=name, ChangeSetName='first')
    assert [(c['ResourceChange']['Action'], c['ResourceChange']['LogicalResourceId']) for c in shown['Changes']] == [('Add', 'One'), ('Add', 'Two')]
    cfn.execute_change_set(StackName=name, ChangeSetName='first')
    cfn.get_waiter('stack_create_complete').wait(StackName=name, WaiterConfig=FAST)
    assert cfn.describe_stacks(StackName=name)['Stacks'][0]['Tags'] == [{'Key': 'team', 'Value': 'blue'}]

    cfn.create_change_set(StackName=name, ChangeSetName='same', TemplateBody=first)
    with pytest.raises(WaiterError):
        cfn.get_waiter('change_set_create_complete').wait(StackName=name, ChangeSetName='same', WaiterConfig=FAST)
    shown = cfn.describe_change_set(StackName=name, ChangeSetName='same')
    assert shown['Status'] == 'FAILED' and "didn't contain changes" in shown['StatusReason']
    with pytest.raises(ClientError, match='InvalidChangeSetStatus'):
        cfn.execute_change_set(StackName=name, ChangeSetName='same')
    assert [s['ChangeSetName'] for s in cfn.list_change_sets(StackName=name)['Summaries']] == ['same']
    cfn.delete_change_set(StackName=name, ChangeSetName='same')

    new = f'{name}-renamed'
    cfn.create_change_set(StackName=name, ChangeSetName='next', TemplateBody=json.dumps(bucket_stack(One={'Properties': {'BucketName': new}}, Three={})))
    changes = {c['ResourceChange']['LogicalResourceId']: c['ResourceChange'] for c in cfn.describe_change_set(StackName=name, ChangeSetName='next')['Changes']}
    assert {k: v['Action'] for k, v in changes.items()} == {'One': 'Modify', 'Two': 'Remove', 'Three': 'Add'}
    assert changes['One']['Replacement'] == 'True'
    assert changes['One']['Details'][0]['Target'] == {'Attribute': 'Properties', 'Name': 'BucketName', 'RequiresRecreation': 'Always'}
    was = {r['LogicalResourceId']: r['PhysicalResourceId'] for r in cfn.list_stack_resources(StackName=name)['StackResourceSummaries']}
    cfn.execute_change_set(StackName=name, ChangeSetName='next')
    cfn.get_waiter('stack_update_complete').wait(StackName=name, WaiterConfig=FAST)
    now = {r['LogicalResourceId']: r['PhysicalResourceId'] for r in cfn.list_stack_resources(StackName=name)['StackResourceSummaries']}
    assert now['One'] == new and set(now) == {'One', 'Three'} and was['One'] != new


def test_what_was_replaced_goes_after_the_update(tandem, cfn, name):
    s3, new = tandem.boto('s3'), f'{name}-renamed'
    create(cfn, name, bucket_stack(One={}))
    was = cfn.describe_stack_resource(StackName=name, LogicalResourceId='One')['StackResourceDetail']['PhysicalResourceId']
    cfn.update_stack(StackName=name, TemplateBody=json.dumps(bucket_stack(One={'Properties': {'BucketName': new}})))
    cfn.get_waiter('stack_update_complete').wait(StackName=name, WaiterConfig=FAST)
    assert {b['Name'] for b in s3.list_buckets()['Buckets']} & {was, new} == {new}


def test_a_create_that_fails_is_rolled_back(tandem, cfn, name):
    s3, taken = tandem.boto('s3'), f'{name}-taken'
    s3.create_bucket(Bucket=taken)
    template = bucket_stack(One={}, Two={'DependsOn': 'One', 'Properties': {'BucketName': taken}})
    cfn.create_stack(StackName=name, TemplateBody=json.dumps(template))
    with pytest.raises(WaiterError):
        cfn.get_waiter('stack_create_complete').wait(StackName=name, WaiterConfig=FAST)
    eventually(lambda: cfn.describe_stacks(StackName=name)['Stacks'][0]['StackStatus'] == 'ROLLBACK_COMPLETE')
    failed = [e for e in cfn.describe_stack_events(StackName=name)['StackEvents'] if e['ResourceStatus'] == 'CREATE_FAILED']
    assert failed[0]['LogicalResourceId'] == 'Two' and 'HandlerErrorCode: AlreadyExists' in failed[0]['ResourceStatusReason']
    assert [b['Name'] for b in s3.list_buckets()['Buckets'] if b['Name'].startswith(name)] == [taken]     # it was not ours
    with pytest.raises(ClientError, match='ROLLBACK_COMPLETE state and can not be updated'):
        cfn.update_stack(StackName=name, TemplateBody=json.dumps(bucket_stack(One={})))
    s3.delete_bucket(Bucket=taken)


def test_an_update_that_fails_is_rolled_back(tandem, cfn, name):
    s3, taken = tandem.boto('s3'), f'{name}-taken'
    s3.create_bucket(Bucket=taken)
    create(cfn, name, bucket_stack(One={}))
    was = cfn.describe_stack_resource(StackName=name, LogicalResourceId='One')['StackResourceDetail']['PhysicalResourceId']
    cfn.update_stack(StackName=name, TemplateBody=json.dumps(bucket_stack(
        One={'Properties': {'BucketName': f'{name}-new'}}, Two={'DependsOn': 'One', 'Properties': {'BucketName': taken}})))
    eventually(lambda: cfn.describe_stacks(StackName=name)['Stacks'][0]['StackStatus'] == 'UPDATE_ROLLBACK_COMPLETE')
    resources = cfn.list_stack_resources(StackName=name)['StackResourceSummaries']
    assert [(r['LogicalResourceId'], r['PhysicalResourceId']) for r in resources] == [('One', was)]
    assert {b['Name'] for b in s3.list_buckets()['Buckets'] if b['Name'].startswith(name)} == {was, taken}
    s3.delete_bucket(Bucket=taken)


CUSTOM = '''
import json, urllib.request
def handler(event, context):
    answer = {'Status': 'SUCCESS', 'PhysicalResourceId': event.get('PhysicalResourceId') or 'made-by-hand', 'StackId': event['StackId'],
              'RequestId': event['RequestId'], 'LogicalResourceId': event['LogicalResourceId'],
              'Data': {'Double': str(int(event['ResourceProperties'].get('Number', '0')) * 2)}}
    if event['ResourceProperties'].get('Fail') and event['RequestType'] != 'Delete':
        answer.update(Status='FAILED', Reason='was asked to')
    request = urllib.request.Request(event['ResponseURL'], json.dumps(answer).encode(), {'content-type': ''}, method='PUT')
    urllib.request.urlopen(request)
'''


def custom_stack(**properties):
    return {'Resources': {
        'Maker': {'Type': 'AWS::Lambda::Function', 'Properties': {'Runtime': 'python3.11', 'Handler': 'index.handler', 'Role': ROLE, 'Timeout': 20,
                                                                  'Code': {'ZipFile': CUSTOM}}},
        'Made': {'Type': 'Custom::Thing', 'Properties': {'ServiceToken': {'Fn::GetAtt': ['Maker', 'Arn']}, **properties}}},
        'Outputs': {'Double': {'Value': {'Fn::GetAtt': 'Made.Double'}}, 'Id': {'Value': {'Ref': 'Made'}}}}


def test_custom_resources_are_functions(cfn, name):
    create(cfn, name, custom_stack(Number='21'))
    assert outputs(cfn, name) == {'Double': '42', 'Id': 'made-by-hand'}
    cfn.update_stack(StackName=name, TemplateBody=json.dumps(custom_stack(Number='4')))
    cfn.get_waiter('stack_update_complete').wait(StackName=name, WaiterConfig=FAST)
    assert outputs(cfn, name)['Double'] == '8'
    cfn.update_stack(StackName=name, TemplateBody=json.dumps(custom_stack(Number='4', Fail='yes')))
    eventually(lambda: cfn.describe_stacks(StackName=name)['Stacks'][0]['StackStatus'] == 'UPDATE_ROLLBACK_COMPLETE')
    reasons = [e.get('ResourceStatusReason', '') for e in cfn.describe_stack_events(StackName=name)['StackEvents']]
    assert any('Message returned: was asked to' in r for r in reasons)


def test_exports_and_imports(cfn, name):
    create(cfn, name, {**bucket_stack(One={}), 'Outputs': {'O': {'Value': {'Ref': 'One'}, 'Export': {'Name': f'{name}-export'}}}})
    other = name + '-user'
    create(cfn, other, bucket_stack(Mine={'Properties': {'BucketName': {'Fn::Join': ['', [{'Fn::ImportValue': f'{name}-export'}, '-2']]}}}))
    assert cfn.list_imports(ExportName=f'{name}-export')['Imports'] == [other]
    assert [e['Name'] for e in cfn.list_exports()['Exports'] if e['Name'].startswith(name)] == [f'{name}-export']
    with pytest.raises(ClientError, match='in use by'):
        cfn.delete_stack(StackName=name)
    cfn.delete_stack(StackName=other)
    cfn.get_waiter('stack_delete_complete').wait(StackName=other, WaiterConfig=FAST)


def test_protection_and_kept_resources(tandem, cfn, name):
    create(cfn, name, bucket_stack(One={'DeletionPolicy': 'Retain'}), EnableTerminationProtection=True)
    bucket = cfn.describe_stack_resource(StackName=name, LogicalResourceId='One')['StackResourceDetail']['PhysicalResourceId']
    with pytest.raises(ClientError, match='TerminationProtection is enabled'):
        cfn.delete_stack(StackName=name)
    cfn.update_termination_protection(StackName=name, EnableTerminationProtection=False)
    made = cfn.describe_stacks(StackName=name)['Stacks'][0]['StackId']
    cfn.delete_stack(StackName=name)
    cfn.get_waiter('stack_delete_complete').wait(StackName=name, WaiterConfig=FAST)
    assert cfn.describe_stacks(StackName=made)['Stacks'][0]['StackStatus'] == 'DELETE_COMPLETE'
    tandem.boto('s3').delete_bucket(Bucket=bucket)


@pytest.mark.parametrize('template, says', [
    ('{', 'not well-formed'),
    ('a: [', 'not well-formed'),
    ('{}', 'At least one Resources member'),
    ('{"Resources": {"A": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": {"Ref": "B"}}}}}', 'Unresolved resource dependencies'),
    ('{"Resources": {"A": {"Type": "AWS::What::Ever"}}}', 'Unrecognized resource types: .AWS::What::Ever'),
    ('{"Resources": {"A": {"Type": "AWS::S3::Bucket", "DependsOn": "B"}, "B": {"Type": "AWS::S3::Bucket", "DependsOn": "A"}}}', 'Circular dependency'),
    ('{"Resources": {"A-b": {"Type": "AWS::S3::Bucket"}}}', 'non alphanumeric'),
    ('{"Nothing": 1}', 'Invalid template property'),
    ('{"Parameters": {"P": {"Type": "String"}}, "Resources": {"A": {"Type": "AWS::S3::Bucket"}}}', 'must have values'),
    ('{"Resources": {"A": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {}}}}}', 'CAPABILITY_IAM'),
    ('{"Transform": "Mine", "Resources": {"A": {"Type": "AWS::S3::Bucket"}}}', 'No transform named Mine'),
])
def test_bad_templates(cfn, name, template, says):
    with pytest.raises(ClientError, match=says):
        cfn.create_stack(StackName=name, TemplateBody=template)
    assert name not in [s['StackName'] for s in cfn.describe_stacks()['Stacks']]


def test_bombs_are_refused(cfn, name):
    loop = {'Transform': 'AWS::LanguageExtensions', 'Resources': {'Fn::ForEach::A': ['a', [str(i) for i in range(100)], {
        'Fn::ForEach::B': ['b', [str(i) for i in range(100)], {'Fn::ForEach::C': ['c', [str(i) for i in range(100)], {
            'X${a}Y${b}Z${c}': {'Type': 'AWS::S3::Bucket'}}]}]}]}}
    with pytest.raises(ClientError, match='ValidationError'):
        cfn.create_stack(StackName=name, TemplateBody=json.dumps(loop))
    text = {'Fn::Sub': '${AWS::StackId}' * 500}
    for _ in range(4):
        text = {'Fn::Sub': ['${x}' * 300, {'x': text}]}
    cfn.create_change_set(StackName=name, ChangeSetName='a', ChangeSetType='CREATE',
                          TemplateBody=json.dumps(bucket_stack(A={'Properties': {'BucketName': text}})))
    shown = cfn.describe_change_set(StackName=name, ChangeSetName='a')
    assert shown['Status'] == 'FAILED' and 'more text than is allowed' in shown['StatusReason']


def test_what_is_not_there_is_said(cfn, name):
    for call in ('describe_stacks', 'describe_stack_events', 'describe_stack_resources', 'list_stack_resources', 'get_template', 'list_change_sets'):
        with pytest.raises(ClientError, match='does not exist'):
            getattr(cfn, call)(StackName=name)
    with pytest.raises(ClientError, match='does not exist'):
        cfn.describe_stack_resource(StackName=name, LogicalResourceId='A')


def test_loops_and_language_extensions(cfn, name):
    create(cfn, name, '''
Transform: AWS::LanguageExtensions
Parameters: {Names: {Type: CommaDelimitedList, Default: 'red, green'}}
Resources:
  Fn::ForEach::Each:
    - Name
    - !Ref Names
    - Bucket${Name}:
        Type: AWS::S3::Bucket
        Properties: {BucketName: !Sub '${AWS::StackName}-${Name}'}
Outputs:
  Count: {Value: {Fn::Length: !Ref Names}}
  Json: {Value: {Fn::ToJsonString: {a: [1, !Ref Bucketred]}}}
''')
    assert outputs(cfn, name) == {'Count': '2', 'Json': '{"a":[1,"%s-red"]}' % name}


def test_a_stack_goes_on_after_the_gateway_was_killed(tandem, cfn, name):
    resources = {f'B{i:02}': {'DependsOn': f'B{i - 1:02}'} if i else {} for i in range(40)}
    cfn.create_stack(StackName=name, TemplateBody=json.dumps(bucket_stack(**resources)))
    tandem.kill("gateway")
    eventually(lambda: cfn.describe_stacks(StackName=name)['Stacks'][0]['StackStatus'] == 'CREATE_COMPLETE')
    made = [r['PhysicalResourceId'] for r in cfn.list_stack_resources(StackName=name)['StackResourceSummaries']]
    assert len(made) == 40
    assert {b['Name'] for b in tandem.boto('s3').list_buckets()['Buckets'] if b['Name'].startswith(name)} == set(made)
    shown = [s for s in tandem.get('stacks', '-A')['items'] if s['spec']['stackName'] == name]
    assert shown[0]['status']['status'] == 'CREATE_COMPLETE'
    tandem.kubectl('delete', 'stack', shown[0]['metadata']['name'], '-n', 'default', '--wait=true')      # the finalizer takes the buckets
    assert not [b for b in tandem.boto('s3').list_buckets()['Buckets'] if b['Name'].startswith(name)]


def test_a_stack_with_any_numbers_is_known_after_a_restart(tandem, cfn, name):
    """What is signed is read back from a store, which writes numbers in its own way."""
    create(cfn, name, '''
Resources:
  P:
    Type: AWS::SSM::Parameter
    Properties:
      {Type: String, Value: x, Description: '', Unread: [1.10, 1.0, 1e3, 12345678901234567890, 9007199254740993, -0.0, 1.0e-7, 0x10, .5, 123456789.123456789123,
       "\\u00e9\\u2028 \\u0007", '', null, {}, [[]], {a: null, b: ''}]}
''')
    tandem.kill('gateway')
    eventually(lambda: [s for s in cfn.describe_stacks()['Stacks'] if s['StackName'] == name])
    cfn.delete_stack(StackName=name)
    cfn.get_waiter('stack_delete_complete').wait(StackName=name, WaiterConfig=FAST)


def test_a_version_is_there_when_it_is_initialised(tandem, cfn, name):
    """With SnapStart a published version is Pending while its code is initialised: its resource is complete after that."""
    create(cfn, name, {'Resources': {
        'F': {'Type': 'AWS::Lambda::Function', 'Properties': {
            'Runtime': 'python3.11', 'Handler': 'index.handler', 'Role': ROLE, 'SnapStart': {'ApplyOn': 'PublishedVersions'},
            'Code': {'ZipFile': 'import time\ntime.sleep(1)\ndef handler(event, context): return 1\n'}}},
        'V': {'Type': 'AWS::Lambda::Version', 'Properties': {'FunctionName': {'Ref': 'F'}}}},
        'Outputs': {'Arn': {'Value': {'Ref': 'V'}}}})
    arn = outputs(cfn, name)['Arn']
    assert tandem.boto('lambda').get_function_configuration(FunctionName=arn)['State'] == 'Active'
    states = [e['ResourceStatus'] for e in cfn.describe_stack_events(StackName=name)['StackEvents'] if e['LogicalResourceId'] == 'V']
    assert states == ['CREATE_COMPLETE', 'CREATE_IN_PROGRESS']


def test_an_object_that_the_door_did_not_write_is_no_stack(tandem, cfn, name):
    """Who may write Stack objects has a stack's caller sealed in them: neither a copy nor a change of one may act in his name."""
    def evil(of, kind):
        of['spec']['template'] = json.dumps({'Resources': {'P': {'Type': 'AWS::SSM::Parameter', 'Properties': {
            'Name': f'/{name}/{kind}', 'Type': 'String', 'Value': 'mine'}}}})
        of['status'].update(status='CREATE_IN_PROGRESS')
        return of
    create(cfn, name, bucket_stack(B={'Properties': {'BucketName': name}}))
    create(cfn, name + '-good', bucket_stack(B={}))
    mine, good = [next(s for s in tandem.get('stacks', '-n', 'default')['items'] if s['spec']['stackName'] == n) for n in (name, name + '-good')]
    copy = evil(json.loads(json.dumps(mine)), 'copy')
    copy['metadata'] = {'name': name + '-copy', 'namespace': 'default', 'finalizers': ['tandem.dev/stack']}
    copy['spec'].update(stackName=name + '-copy', stackId=mine['spec']['stackId'].replace(name + '/', name + '-copy/'))
    tandem.kubectl('create', '-f', '-', text=json.dumps(copy))
    for one in (copy, evil(mine, 'changed')):
        one['metadata'].pop('resourceVersion', None)
        for sub in ((), ('--subresource=status',)):
            tandem.kubectl('replace', *sub, '-f', '-', text=json.dumps(one))
    tandem.kill('gateway')
    eventually(lambda: cfn.describe_stacks(StackName=name + '-good'))
    fresh = name + '-fresh'
    create(cfn, fresh, bucket_stack(B={}))               # by now the others would have been gone on with
    assert tandem.boto('ssm').get_parameters(Names=[f'/{name}/copy', f'/{name}/changed'])['Parameters'] == []
    for other in (name, name + '-copy'):
        with pytest.raises(ClientError, match='does not exist'):
            cfn.describe_stacks(StackName=other)
    for one in (mine, copy):
        tandem.kubectl('delete', 'stack', one['metadata']['name'], '-n', 'default', '--wait=true')
    tandem.boto('s3').delete_bucket(Bucket=name)      # nobody took it
    for one in (fresh, name + '-good'):
        cfn.delete_stack(StackName=one)
        cfn.get_waiter('stack_delete_complete').wait(StackName=one, WaiterConfig=FAST)


def test_what_the_page_on_deploying_shows(tandem, cfn):
    page = open(os.path.join(TOP, 'docs', 'deploy.md')).read()
    env = {**os.environ, 'AWS_ENDPOINT_URL': tandem.status['aws'], 'AWS_DEFAULT_REGION': 'us-east-1', 'AWS_ACCESS_KEY_ID': tandem.key['AccessKeyId'],
           'AWS_SECRET_ACCESS_KEY': tandem.key['SecretAccessKey']}
    done = subprocess.run([sys.executable, '-c', re.search(r'```python\n(.*?)```', page, re.S).group(1)], env=env, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60)
    assert done.stdout == 'hello you\n'


SAM = {'Transform': 'AWS::Serverless-2016-10-31', 'Globals': {'Function': {'Runtime': 'python3.11', 'Handler': 'index.handler'}}, 'Resources': {
    'Hello': {'Type': 'AWS::Serverless::Function', 'Properties': {
        'InlineCode': 'def handler(event, context): return context.invoked_function_arn', 'AutoPublishAlias': 'live',
        'Policies': [{'LambdaInvokePolicy': {'FunctionName': 'other'}}, 'AWSXRayDaemonWriteAccess'],
        'Events': {'Put': {'Type': 'S3', 'Properties': {'Bucket': {'Ref': 'Things'}, 'Events': 's3:ObjectCreated:*'}}}}},
    'Things': {'Type': 'AWS::S3::Bucket'}}, 'Outputs': {'Alias': {'Value': {'Ref': 'Hello.Alias'}}, 'Role': {'Value': {'Ref': 'HelloRole'}}}}


def test_what_was_half_made_goes_too(tandem, cfn, name):
    role = {'Resources': {'R': {'Type': 'AWS::IAM::Role', 'Properties': {'AssumeRolePolicyDocument': {'Version': '2012-10-17', 'Statement': [
        {'Effect': 'Allow', 'Principal': {'Service': 'lambda.amazonaws.com'}, 'Action': 'sts:AssumeRole'}]},
        'Policies': [{'PolicyName': 'p', 'PolicyDocument': {'Version': '2012-10-17', 'Statement': [{'Effect': 'Allow', 'Action': '*', 'Resource': '*'}]}}],
        'ManagedPolicyArns': ['arn:aws:iam::aws:policy/NobodyKnowsIt']}}}}
    cfn.create_stack(StackName=name, TemplateBody=json.dumps(role), Capabilities=['CAPABILITY_IAM'])
    eventually(lambda: cfn.describe_stacks(StackName=name)['Stacks'][0]['StackStatus'] == 'ROLLBACK_COMPLETE')
    assert not [r for r in tandem.boto('iam').list_roles()['Roles'] if r['RoleName'].startswith(name)]


def test_serverless_templates_are_written_out(tandem, cfn, name):
    with pytest.raises(ClientError, match='CAPABILITY_AUTO_EXPAND'):
        cfn.create_stack(StackName=name, TemplateBody=json.dumps(SAM), Capabilities=['CAPABILITY_IAM'])
    create(cfn, name, SAM, Capabilities=['CAPABILITY_IAM', 'CAPABILITY_AUTO_EXPAND'])
    out = outputs(cfn, name)
    assert json.load(tandem.boto('lambda').invoke(FunctionName=out['Alias'])['Payload']) == out['Alias']
    role = tandem.boto('iam').get_role_policy(RoleName=out['Role'], PolicyName='HelloRolePolicy0')['PolicyDocument']
    assert role['Statement'][0]['Resource'] == ['arn:aws:lambda:us-east-1:000000000000:function:other*']
    assert 'AWS::Lambda::Alias' in cfn.get_template(StackName=name, TemplateStage='Processed')['TemplateBody'].__str__()
    api = json.loads(json.dumps(SAM))
    api['Resources']['Hello']['Properties']['Events'] = {'Get': {'Type': 'HttpApi'}}
    with pytest.raises(ClientError, match='FunctionUrlConfig'):
        cfn.update_stack(StackName=name, TemplateBody=json.dumps(api), Capabilities=['CAPABILITY_IAM', 'CAPABILITY_AUTO_EXPAND'])
