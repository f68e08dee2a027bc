"""IAM and STS through an unmodified boto3: what is stored is told again, and what a policy says is what happens."""
import json, time, uuid

import pytest
from botocore.exceptions import ClientError

ACCOUNT = '000000000000'
TRUST = {'Version': '2012-10-17', 'Statement': [{'Effect': 'Allow', 'Principal': {'Service': 'lambda.amazonaws.com'}, 'Action': 'sts:AssumeRole'}]}


def policy(*statements):
    return json.dumps({'Version': '2012-10-17', 'Statement': list(statements)})


def allow(action, resource='*', **more):
    return {'Effect': 'Allow', 'Action': action, 'Resource': resource, **more}


def deny(action, resource='*', **more):
    return {'Effect': 'Deny', 'Action': action, 'Resource': resource, **more}


def refused(code, what, *args, status=None, **kw):
    with pytest.raises(ClientError) as e:
        what(*args, **kw)
    got = e.value.response
    assert got['Error']['Code'] == code, got
    if status:
        assert got['ResponseMetadata']['HTTPStatusCode'] == status, got
    return got['Error'].get('Message', '')


def new(word):
    return f'{word}-{uuid.uuid4().hex[:8]}'


@pytest.fixture(scope='module')
def iam(tandem):
    return tandem.boto('iam')


# ---- what is stored ----

def test_life_of_a_role(tandem, iam):
    name = 'Reader+of.' + uuid.uuid4().hex[:8]
    made = iam.create_role(RoleName=name, Path='/team/', AssumeRolePolicyDocument=json.dumps(TRUST), Description='reads',
                           Tags=[{'Key': 'cost', 'Value': 'low'}])['Role']
    assert made['Arn'] == f'arn:aws:iam::{ACCOUNT}:role/team/{name}' and made['RoleId'].startswith('AROA')
    iam.get_waiter('role_exists').wait(RoleName=name)
    got = iam.get_role(RoleName=name)['Role']
    assert got['AssumeRolePolicyDocument'] == TRUST and got['Description'] == 'reads' and got['MaxSessionDuration'] == 3600
    assert got['Tags'] == [{'Key': 'cost', 'Value': 'low'}] and got['RoleId'] == made['RoleId']
    refused('EntityAlreadyExists', iam.create_role, RoleName=name.upper(), AssumeRolePolicyDocument=json.dumps(TRUST), status=409)

    iam.put_role_policy(RoleName=name, PolicyName='logs', PolicyDocument=policy(allow('logs:*')))
    iam.attach_role_policy(RoleName=name, PolicyArn='arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole')
    assert iam.list_role_policies(RoleName=name)['PolicyNames'] == ['logs']
    assert iam.get_role_policy(RoleName=name, PolicyName='logs')['PolicyDocument']['Statement'] == [allow('logs:*')]
    assert iam.list_attached_role_policies(RoleName=name)['AttachedPolicies'] == [
        {'PolicyName': 'AWSLambdaBasicExecutionRole', 'PolicyArn': 'arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole'}]
    assert iam.list_instance_profiles_for_role(RoleName=name)['InstanceProfiles'] == []

    iam.update_role(RoleName=name, Description='', MaxSessionDuration=7200)
    iam.tag_role(RoleName=name, Tags=[{'Key': 'a', 'Value': 'b'}])
    iam.untag_role(RoleName=name, TagKeys=['cost'])
    assert iam.list_role_tags(RoleName=name)['Tags'] == [{'Key': 'a', 'Value': 'b'}]
    assert iam.get_role(RoleName=name)['Role']['MaxSessionDuration'] == 7200
    seen = [r for r in tandem.get('iamroles')['items'] if r['spec']['name'] == name]
    assert seen and seen[0]['spec']['path'] == '/team/'

    assert 'detach all policies' in refused('DeleteConflict', iam.delete_role, RoleName=name, status=409)
    iam.detach_role_policy(RoleName=name, PolicyArn='arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole')
    assert 'delete policies' in refused('DeleteConflict', iam.delete_role, RoleName=name)
    iam.delete_role_policy(RoleName=name, PolicyName='logs')
    iam.delete_role(RoleName=name)
    assert refused('NoSuchEntity', iam.get_role, RoleName=name, status=404) == f'The role with name {name} cannot be found.'


def test_life_of_a_policy(iam):
    name = new('reading')
    arn = iam.create_policy(PolicyName=name, Path='/p/', Description='to read', PolicyDocument=policy(allow('s3:Get*')))['Policy']['Arn']
    assert arn == f'arn:aws:iam::{ACCOUNT}:policy/p/{name}'
    iam.get_waiter('policy_exists').wait(PolicyArn=arn)
    for n in range(2, 6):
        assert iam.create_policy_version(PolicyArn=arn, PolicyDocument=policy(allow(f's3:Get{n}*')), SetAsDefault=n == 3)['PolicyVersion']['VersionId'] == f'v{n}'
    refused('LimitExceeded', iam.create_policy_version, PolicyArn=arn, PolicyDocument=policy(allow('s3:Get*')), status=409)
    got = iam.get_policy(PolicyArn=arn)['Policy']
    assert got['DefaultVersionId'] == 'v3' and got['AttachmentCount'] == 0 and got['Description'] == 'to read'
    assert iam.get_policy_version(PolicyArn=arn, VersionId='v3')['PolicyVersion']['Document']['Statement'] == [allow('s3:Get3*')]
    assert [v['VersionId'] for v in iam.list_policy_versions(PolicyArn=arn)['Versions']] == ['v5', 'v4', 'v3', 'v2', 'v1']
    refused('DeleteConflict', iam.delete_policy_version, PolicyArn=arn, VersionId='v3')
    refused('DeleteConflict', iam.delete_policy, PolicyArn=arn)
    for v in ('v1', 'v2', 'v4', 'v5'):
        iam.delete_policy_version(PolicyArn=arn, VersionId=v)
    user = new('user')
    iam.create_user(UserName=user)
    iam.attach_user_policy(UserName=user, PolicyArn=arn)
    users = iam.list_entities_for_policy(PolicyArn=arn)
    assert [u['UserName'] for u in users['PolicyUsers']] == [user] and users['PolicyRoles'] == []
    assert iam.get_policy(PolicyArn=arn)['Policy']['AttachmentCount'] == 1
    refused('DeleteConflict', iam.delete_policy, PolicyArn=arn)
    refused('NoSuchEntity', iam.attach_user_policy, UserName=user, PolicyArn=arn + 'x')
    iam.detach_user_policy(UserName=user, PolicyArn=arn)
    iam.delete_policy(PolicyArn=arn)
    iam.delete_user(UserName=user)
    refused('NoSuchEntity', iam.get_policy, PolicyArn=arn, status=404)


def test_shipped_policies(iam):
    names = {p['PolicyName'] for page in iam.get_paginator('list_policies').paginate(Scope='AWS', PaginationConfig={'PageSize': 3}) for p in page['Policies']}
    assert names >= {'AWSLambdaBasicExecutionRole', 'AWSLambda_FullAccess', 'AmazonS3ReadOnlyAccess', 'AmazonS3FullAccess', 'AdministratorAccess', 'AWSLambdaRole',
                     'AWSLambdaSQSQueueExecutionRole', 'AWSLambdaVPCAccessExecutionRole', 'CloudWatchLogsFullAccess', 'ReadOnlyAccess'}
    refused('AccessDenied', iam.delete_policy, PolicyArn='arn:aws:iam::aws:policy/AdministratorAccess')


def test_pages(iam):
    made = sorted(new('page') for _ in range(7))
    for name in made:
        iam.create_user(UserName=name, Path='/pages/')
    got = [u['UserName'] for page in iam.get_paginator('list_users').paginate(PathPrefix='/pages/', PaginationConfig={'PageSize': 2}) for u in page['Users']]
    assert got == made
    for name in made:
        iam.delete_user(UserName=name)


def test_bad_input(iam):
    for text in ('{', '{}', json.dumps({'Version': '2012-10-17', 'Statement': []}), policy({'Effect': 'Allow'}), policy(allow('s3:*'))):
        refused('MalformedPolicyDocument', iam.create_role, RoleName=new('x'), AssumeRolePolicyDocument=text, status=400)
    refused('MalformedPolicyDocument', iam.create_policy, PolicyName=new('x'), PolicyDocument=json.dumps(TRUST))
    refused('LimitExceeded', iam.create_policy, PolicyName=new('x'), PolicyDocument=policy(*[allow('s3:Get*', 'arn:aws:s3:::' + 'x' * 1000)] * 8))
    refused('ValidationError', iam.create_user, UserName='no/slash')
    refused('NoSuchEntity', iam.get_user, UserName='nobody')
    refused('NotImplemented', iam.create_group, GroupName='g')


def test_simulation(iam):
    out = iam.simulate_custom_policy(PolicyInputList=[policy(allow('s3:Get*', 'arn:aws:s3:::a/*'), deny('s3:GetObject', 'arn:aws:s3:::a/secret'))],
                                     ActionNames=['s3:GetObject'], ResourceArns=['arn:aws:s3:::a/x', 'arn:aws:s3:::a/secret', 'arn:aws:s3:::b/x'])
    assert [r['EvalDecision'] for r in out['EvaluationResults']] == ['allowed', 'explicitDeny', 'implicitDeny']
    out = iam.simulate_custom_policy(PolicyInputList=[policy(allow('s3:*', Condition={'IpAddress': {'aws:SourceIp': '10.0.0.0/8'}}))], ActionNames=['s3:GetObject'],
                                     ContextEntries=[{'ContextKeyName': 'aws:SourceIp', 'ContextKeyValues': ['10.1.1.1'], 'ContextKeyType': 'ip'}])
    assert out['EvaluationResults'][0]['EvalDecision'] == 'allowed'
