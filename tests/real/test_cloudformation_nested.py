"""Stacks in stacks, rules about parameters, and what stacks do not have."""
import json

import pytest
from botocore.exceptions import ClientError, WaiterError

from conftest import eventually
from test_cloudformation import FAST, ROLE, cfn, create, name, outputs  # noqa: F401 (cfn and name are fixtures)

INNER = '''
Parameters: {Who: {Type: String}, More: {Type: CommaDelimitedList, Default: ''}}
Resources:
  Setting: {Type: AWS::SSM::Parameter, Properties: {Type: String, Value: !Sub '${Who}!'}}
Outputs:
  Setting: {Value: !Ref Setting}
  Said: {Value: !Sub '${Who}${Punctuation}'}
'''.replace('${Punctuation}', '!')


@pytest.fixture(scope='module')
def place(tandem):
    """place(key, text): the URL of a template in a bucket."""
    s3 = tandem.boto('s3')
    s3.create_bucket(Bucket='templates-in-templates')

    def put(key, text):
        s3.put_object(Bucket='templates-in-templates', Key=key, Body=text if isinstance(text, str) else json.dumps(text))
        return f'https://templates-in-templates.s3.us-east-1.amazonaws.com/{key}'
    yield put
    for o in s3.list_objects_v2(Bucket='templates-in-templates').get('Contents', []):
        s3.delete_object(Bucket='templates-in-templates', Key=o['Key'])
    s3.delete_bucket(Bucket='templates-in-templates')


def outer(url, who='one', **more):
    return {'Resources': {'Inner': {'Type': 'AWS::CloudFormation::Stack', 'Properties': {'TemplateURL': url, 'Parameters': {'Who': who}, **more}},
                          'After': {'Type': 'AWS::SSM::Parameter', 'Properties': {'Type': 'String', 'Value': {'Fn::GetAtt': ['Inner', 'Outputs.Said']}}}},
            'Outputs': {'Said': {'Value': {'Fn::GetAtt': 'Inner.Outputs.Said'}}, 'Id': {'Value': {'Ref': 'Inner'}}, 'After': {'Value': {'Ref': 'After'}}}}


def reasons(cfn, name):
    return ' | '.join(e.get('ResourceStatusReason', '') for e in cfn.describe_stack_events(StackName=name)['StackEvents'])


def test_a_stack_in_a_stack(tandem, cfn, name, place):
    url, ssm = place('inner.yaml', INNER), tandem.boto('ssm')
    made = create(cfn, name, outer(url), Tags=[{'Key': 'team', 'Value': 'x'}])
    out = outputs(cfn, name)
    inner = cfn.describe_stacks(StackName=out['Id'])['Stacks'][0]
    assert out['Said'] == 'one!' and ssm.get_parameter(Name=out['After'])['Parameter']['Value'] == 'one!'
    assert inner['StackName'].startswith(f'{name}-Inner-') and inner['Tags'] == [{'Key': 'team', 'Value': 'x'}]
    assert (inner['ParentId'], inner['RootId']) == (made['StackId'], made['StackId'])
    assert cfn.describe_stack_resource(StackName=name, LogicalResourceId='Inner')['StackResourceDetail']['PhysicalResourceId'] == out['Id']
    # a change goes down, what came of it comes up
    cfn.update_stack(StackName=name, TemplateBody=json.dumps(outer(url, 'two')))
    cfn.get_waiter('stack_update_complete').wait(StackName=name, WaiterConfig=FAST)
    out = outputs(cfn, name)
    assert out['Said'] == 'two!' and out['Id'] == inner['StackId'] and ssm.get_parameter(Name=out['After'])['Parameter']['Value'] == 'two!'
    cfn.create_change_set(StackName=name, ChangeSetName='more', TemplateBody=json.dumps(outer(url, 'three')), IncludeNestedStacks=True)
    shown = cfn.describe_change_set(StackName=name, ChangeSetName='more')
    change = {c['ResourceChange']['LogicalResourceId']: c['ResourceChange'] for c in shown['Changes']}['Inner']
    assert shown['IncludeNestedStacks'] and (change['Action'], change['ResourceType'], change['Replacement']) == ('Modify', 'AWS::CloudFormation::Stack', 'False')
    setting = outputs(cfn, out['Id'])['Setting']
    cfn.delete_stack(StackName=name)
    cfn.get_waiter('stack_delete_complete').wait(StackName=made['StackId'], WaiterConfig=FAST)
    assert cfn.describe_stacks(StackName=out['Id'])['Stacks'][0]['StackStatus'] == 'DELETE_COMPLETE'
    with pytest.raises(ClientError, match='ParameterNotFound'):
        ssm.get_parameter(Name=setting)


def test_a_stack_in_a_stack_by_a_role(tandem, cfn, name, place):
    """Whoever works on the outer one works on the inner one: its template, too, is read as he."""
    url, iam = place('inner.yaml', INNER), tandem.boto('iam')
    trust = {'Version': '2012-10-17', 'Statement': [{'Effect': 'Allow', 'Principal': {'Service': 'cloudformation.amazonaws.com'}, 'Action': 'sts:AssumeRole'}]}
    role = iam.create_role(RoleName='nests-stacks', AssumeRolePolicyDocument=json.dumps(trust))['Role']['Arn']

    def may(*actions):
        iam.put_role_policy(RoleName='nests-stacks', PolicyName='p', PolicyDocument=json.dumps(
            {'Version': '2012-10-17', 'Statement': [{'Effect': 'Allow', 'Action': list(actions), 'Resource': '*'}]}))
    try:
        may('cloudformation:*', 'ssm:*')
        eventually(lambda: iam.get_role_policy(RoleName='nests-stacks', PolicyName='p'))
        cfn.create_stack(StackName=name, TemplateBody=json.dumps(outer(url)), RoleARN=role, OnFailure='DELETE')
        id = eventually(lambda: [s['StackId'] for s in cfn.list_stacks()['StackSummaries'] if s['StackName'] == name and s['StackStatus'] == 'DELETE_COMPLETE'], 60)[0]
        assert 's3:GetObject' in reasons(cfn, id) or 'Access Denied' in reasons(cfn, id), reasons(cfn, id)
        may('cloudformation:*', 'ssm:*', 's3:GetObject')
        create(cfn, name, outer(url), RoleARN=role)
        assert outputs(cfn, name)['Said'] == 'one!'
        cfn.delete_stack(StackName=name)
        cfn.get_waiter('stack_delete_complete').wait(StackName=name, WaiterConfig=FAST)
    finally:
        iam.delete_role_policy(RoleName='nests-stacks', PolicyName='p')
        iam.delete_role(RoleName='nests-stacks')


def test_an_update_that_fails_within_is_rolled_back_without(cfn, name, place):
    url = place('inner.yaml', INNER)
    create(cfn, name, outer(url))
    bad = place('bad.yaml', INNER.replace('Outputs:', f'  Broken: {{Type: AWS::Lambda::Alias, Properties: {{FunctionName: nobody-{name}, Name: a, FunctionVersion: "1"}}}}\nOutputs:'))
    cfn.update_stack(StackName=name, TemplateBody=json.dumps(outer(bad, 'two')))
    with pytest.raises(WaiterError):
        cfn.get_waiter('stack_update_complete').wait(StackName=name, WaiterConfig=FAST)
    assert eventually(lambda: cfn.describe_stacks(StackName=name)['Stacks'][0]['StackStatus'] == 'UPDATE_ROLLBACK_COMPLETE')
    out = outputs(cfn, name)
    assert out['Said'] == 'one!' and outputs(cfn, out['Id'])['Said'] == 'one!'
    assert f'Embedded stack {out["Id"]} was not successfully updated: The following resource(s) failed to update: [Broken].' in reasons(cfn, name)
    cfn.update_stack(StackName=name, TemplateBody=json.dumps(outer(url, 'three')))        # and it goes on from there
    cfn.get_waiter('stack_update_complete').wait(StackName=name, WaiterConfig=FAST)
    assert outputs(cfn, name)['Said'] == 'three!'


def test_a_create_that_fails_within_fails_without(cfn, name, place):
    bad = place('alone.yaml', {'Resources': {'Broken': {'Type': 'AWS::Lambda::Alias', 'Properties': {
        'FunctionName': f'nobody-{name}', 'Name': 'a', 'FunctionVersion': '1'}}}})
    made = cfn.create_stack(StackName=name, TemplateBody=json.dumps(outer(bad, 'x', Parameters={})))
    eventually(lambda: cfn.describe_stacks(StackName=name)['Stacks'][0]['StackStatus'] == 'ROLLBACK_COMPLETE')
    assert 'was not successfully created: The following resource(s) failed to create: [Broken].' in reasons(cfn, name)
    assert not [s for s in cfn.describe_stacks()['Stacks'] if s.get('ParentId') == made['StackId']]


def test_a_stack_that_holds_itself_ends(cfn, name, place):
    url = 'https://templates-in-templates.s3.us-east-1.amazonaws.com/self.json'
    place('self.json', {'Resources': {'Self': {'Type': 'AWS::CloudFormation::Stack', 'Properties': {'TemplateURL': url}}}})
    cfn.create_stack(StackName=name, TemplateURL=url)
    eventually(lambda: cfn.describe_stacks(StackName=name)['Stacks'][0]['StackStatus'] == 'ROLLBACK_COMPLETE', 60)
    assert [s['StackName'] for s in cfn.describe_stacks()['Stacks'] if s['StackName'].startswith(name)] == [name]


def test_a_template_that_is_not_there(cfn, name, place):
    cfn.create_stack(StackName=name, TemplateBody=json.dumps(outer('https://templates-in-templates.s3.amazonaws.com/none.yaml')))
    eventually(lambda: cfn.describe_stacks(StackName=name)['Stacks'][0]['StackStatus'] == 'ROLLBACK_COMPLETE')
    assert 'S3 error: The specified key does not exist.' in reasons(cfn, name)


def test_applications_of_sam(cfn, name, place):
    url = place('inner.yaml', INNER)
    create(cfn, name, {'Transform': 'AWS::Serverless-2016-10-31', 'Resources': {'App': {
        'Type': 'AWS::Serverless::Application', 'Properties': {'Location': url, 'Parameters': {'Who': 'sam', 'More': ['a', 'b']}, 'Tags': {'k': 'v'}}}},
        'Outputs': {'Said': {'Value': {'Fn::GetAtt': 'App.Outputs.Said'}}}}, Capabilities=['CAPABILITY_AUTO_EXPAND'])
    assert outputs(cfn, name)['Said'] == 'sam!'


RULES = '''
Parameters: {Stage: {Type: String}, Zones: {Type: CommaDelimitedList, Default: 'a,b'}, Bootstrap: {Type: 'AWS::SSM::Parameter::Value<String>'}}
Rules:
  Production:
    RuleCondition: !Equals [!Ref Stage, prod]
    Assertions:
      - Assert: !EachMemberIn [!Ref Zones, [a, b, c]]
        AssertDescription: production is in a, b or c
  Bootstrapped:
    Assertions: [{Assert: !Not [!Contains [['1', '2'], !Ref Bootstrap]], AssertDescription: bootstrap again}]
Resources: {Kept: {Type: AWS::SSM::Parameter, Properties: {Type: String, Value: x}}}
'''


def test_rules(tandem, cfn, name):
    ssm = tandem.boto('ssm')
    ssm.put_parameter(Name='version-of-rules', Type='String', Value='2')

    def given(**args):
        return [{'ParameterKey': k, 'ParameterValue': v} for k, v in {'Bootstrap': 'version-of-rules', **args}.items()]
    try:
        with pytest.raises(ClientError, match='Rule Production: production is in a, b or c'):
            cfn.create_stack(StackName=name, TemplateBody=RULES, Parameters=given(Stage='prod', Zones='a,x'))
        with pytest.raises(ClientError, match='lists of Fn::EachMemberIn are too long'):
            cfn.create_stack(StackName=name, TemplateBody=RULES.replace('[a, b, c]', str(['z'] * 999 + ['a', 'b'])), Parameters=given(Stage='prod', Zones='a,' * 99 + 'b'))
        cfn.create_stack(StackName=name, TemplateBody=RULES, Parameters=given(Stage='test', Zones='a,x'), OnFailure='DO_NOTHING')
        shown = eventually(lambda: [s for s in cfn.describe_stacks(StackName=name)['Stacks'] if s['StackStatus'] == 'CREATE_FAILED'])
        assert 'Rule Bootstrapped: bootstrap again' in shown[0]['StackStatusReason']
        cfn.delete_stack(StackName=name)
        cfn.get_waiter('stack_delete_complete').wait(StackName=name, WaiterConfig=FAST)
        ssm.put_parameter(Name='version-of-rules', Type='String', Value='3', Overwrite=True)
        create(cfn, name, RULES, Parameters=given(Stage='prod'))
    finally:
        ssm.delete_parameter(Name='version-of-rules')


def test_an_alias_with_a_url(cfn, name, place, tandem):
    tandem.boto('s3').put_object(Bucket='templates-in-templates', Key='code.zip', Body=__import__('test_lambda').zipped())
    create(cfn, name, f'''
Transform: AWS::Serverless-2016-10-31
Resources:
  Page:
    Type: AWS::Serverless::Function
    Properties:
      {{Runtime: python3.11, Handler: app.handler, Role: '{ROLE}', CodeUri: 's3://templates-in-templates/code.zip', AutoPublishAlias: live,
       FunctionUrlConfig: {{AuthType: NONE}}}}
Outputs: {{Url: {{Value: !GetAtt PageUrl.FunctionUrl}}}}
''', Capabilities=['CAPABILITY_AUTO_EXPAND'])
    url = outputs(cfn, name)['Url']
    assert url.endswith(':live/') and __import__('urllib.request').request.urlopen(url).status == 201


def test_what_stacks_do_not_have(cfn, name):
    kept = {'Resources': {'Kept': {'Type': 'AWS::SSM::Parameter', 'Properties': {'Type': 'String', 'Value': 'x'}}}}
    with pytest.raises(ClientError, match='tandem keeps no stack policies'):
        cfn.create_stack(StackName=name, TemplateBody=json.dumps(kept), StackPolicyBody='{}')
    create(cfn, name, kept)
    for ask in (cfn.detect_stack_drift, lambda StackName: cfn.detect_stack_resource_drift(StackName=StackName, LogicalResourceId='Kept')):
        with pytest.raises(ClientError) as e:
            ask(StackName=name)
        assert e.value.response['Error']['Code'] == 'NotImplemented'
