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


# ---- what is evaluated ----

@pytest.fixture(scope='module')
def buckets(tandem):
    s3 = tandem.boto('s3')
    names = new('mine'), new('theirs')
    for name in names:
        s3.create_bucket(Bucket=name)
        s3.put_object(Bucket=name, Key='dir/a.txt', Body=b'in ' + name.encode())
    return names


def as_(tandem, service, key):
    """A client with other keys: an access key's, or a session's Credentials."""
    import boto3, botocore.config
    config = botocore.config.Config(s3={'addressing_style': 'path'}, retries={'max_attempts': 1})
    return boto3.client(service, endpoint_url=tandem.status['aws'], region_name='us-east-1', aws_access_key_id=key['AccessKeyId'],
                        aws_secret_access_key=key['SecretAccessKey'], aws_session_token=key.get('SessionToken'), config=config)


def user_with(iam, *statements, name=None, **more):
    name = name or new('anna')
    iam.create_user(UserName=name, **more)
    if statements:
        iam.put_user_policy(UserName=name, PolicyName='p', PolicyDocument=policy(*statements))
    return name, iam.create_access_key(UserName=name)['AccessKey']


def role_with(iam, trust, *statements, name=None, **more):
    name = name or new('role')
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({'Version': '2012-10-17', 'Statement': trust}), **more)['Role']['Arn']
    if statements:
        iam.put_role_policy(RoleName=name, PolicyName='p', PolicyDocument=policy(*statements))
    return name, arn


def test_least_privilege(tandem, iam, buckets):
    mine, theirs = buckets
    name, key = user_with(iam, allow(['s3:GetObject', 's3:PutObject'], f'arn:aws:s3:::{mine}/*'), allow('s3:ListBucket', f'arn:aws:s3:::{mine}'))
    assert as_(tandem, 'sts', key).get_caller_identity()['Arn'] == f'arn:aws:iam::{ACCOUNT}:user/{name}'
    s3 = as_(tandem, 's3', key)
    assert s3.get_object(Bucket=mine, Key='dir/a.txt')['Body'].read() == b'in ' + mine.encode()
    s3.put_object(Bucket=mine, Key='dir/b.txt', Body=b'b')
    said = refused('AccessDenied', s3.get_object, Bucket=theirs, Key='dir/a.txt', status=403)
    assert said == (f'User: arn:aws:iam::{ACCOUNT}:user/{name} is not authorized to perform: s3:GetObject on resource: "arn:aws:s3:::{theirs}/dir/a.txt" '
                    'because no identity-based policy allows the s3:GetObject action')
    refused('AccessDenied', s3.delete_object, Bucket=mine, Key='dir/b.txt')
    out = s3.delete_objects(Bucket=mine, Delete={'Objects': [{'Key': 'dir/b.txt'}]})
    assert [e['Code'] for e in out['Errors']] == ['AccessDenied']
    refused('AccessDenied', s3.copy_object, Bucket=mine, Key='dir/c.txt', CopySource=f'{theirs}/dir/a.txt')
    s3.copy_object(Bucket=mine, Key='dir/c.txt', CopySource=f'{mine}/dir/a.txt')
    refused('AccessDenied', s3.list_buckets)
    refused('AccessDenied', s3.create_bucket, Bucket=new('b'))
    refused('NoSuchKey', s3.get_object, Bucket=mine, Key='nothing')
    said = refused('AccessDeniedException', as_(tandem, 'lambda', key).list_functions, status=403)
    assert said == f'User: arn:aws:iam::{ACCOUNT}:user/{name} is not authorized to perform: lambda:ListFunctions on resource: * because no identity-based policy allows the lambda:ListFunctions action'
    refused('AccessDenied', as_(tandem, 'iam', key).list_users, status=403)
    refused('AccessDenied', as_(tandem, 'iam', key).attach_user_policy, UserName=name, PolicyArn='arn:aws:iam::aws:policy/AdministratorAccess')

    iam.attach_user_policy(UserName=name, PolicyArn='arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess')   # counts from the next request on
    assert s3.get_object(Bucket=theirs, Key='dir/a.txt')['Body'].read() == b'in ' + theirs.encode()
    iam.put_user_policy(UserName=name, PolicyName='not', PolicyDocument=policy(deny('s3:*', f'arn:aws:s3:::{theirs}/*')))
    assert 'with an explicit deny in an identity-based policy' in refused('AccessDenied', s3.get_object, Bucket=theirs, Key='dir/a.txt')
    iam.put_user_permissions_boundary(UserName=name, PermissionsBoundary='arn:aws:iam::aws:policy/CloudWatchLogsFullAccess')
    assert 'because no permissions boundary allows' in refused('AccessDenied', s3.get_object, Bucket=mine, Key='dir/a.txt')
    iam.delete_user_permissions_boundary(UserName=name)
    s3.get_object(Bucket=mine, Key='dir/a.txt')

    iam.update_access_key(UserName=name, AccessKeyId=key['AccessKeyId'], Status='Inactive')
    refused('InvalidAccessKeyId', s3.get_object, Bucket=mine, Key='dir/a.txt', status=403)
    iam.update_access_key(UserName=name, AccessKeyId=key['AccessKeyId'], Status='Active')
    s3.get_object(Bucket=mine, Key='dir/a.txt')
    iam.delete_access_key(UserName=name, AccessKeyId=key['AccessKeyId'])
    refused('InvalidAccessKeyId', s3.get_object, Bucket=mine, Key='dir/a.txt')


def test_what_is_not_there_is_not_told(tandem, iam, buckets):
    name, key = user_with(iam, allow('s3:GetObject', f'arn:aws:s3:::{buckets[0]}/*'))
    refused('AccessDenied', as_(tandem, 's3', key).get_object, Bucket=buckets[0], Key='nothing', status=403)


def test_conditions(tandem, iam, buckets):
    mine = buckets[0]
    name, key = user_with(iam, allow('s3:ListBucket', f'arn:aws:s3:::{mine}', Condition={'StringLike': {'s3:prefix': ['${aws:username}/*']}}),
                          allow('s3:PutObject', f'arn:aws:s3:::{mine}/${{aws:PrincipalTag/team}}/*'),
                          allow('s3:GetObject', '*', Condition={'IpAddress': {'aws:SourceIp': '10.0.0.0/8'}}),
                          allow('s3:ListAllMyBuckets', '*', Condition={'DateLessThan': {'aws:CurrentTime': '2000-01-01T00:00:00Z'}}),
                          Tags=[{'Key': 'team', 'Value': 'blue'}])
    s3 = as_(tandem, 's3', key)
    s3.list_objects_v2(Bucket=mine, Prefix=f'{name}/x')
    refused('AccessDenied', s3.list_objects_v2, Bucket=mine, Prefix='dir/')
    refused('AccessDenied', s3.list_objects_v2, Bucket=mine)
    s3.put_object(Bucket=mine, Key='blue/x', Body=b'')
    refused('AccessDenied', s3.put_object, Bucket=mine, Key='red/x', Body=b'')
    refused('AccessDenied', s3.get_object, Bucket=mine, Key='dir/a.txt')     # from 127.0.0.1
    refused('AccessDenied', s3.list_buckets)


def test_bucket_policy(tandem, iam, buckets):
    mine, theirs = buckets
    root = tandem.boto('s3')
    name, key = user_with(iam)
    s3 = as_(tandem, 's3', key)
    refused('NoSuchBucketPolicy', root.get_bucket_policy, Bucket=mine, status=404)
    refused('MalformedPolicy', root.put_bucket_policy, Bucket=mine, Policy=policy(allow('s3:*', f'arn:aws:s3:::{mine}')))
    refused('MalformedPolicy', root.put_bucket_policy, Bucket=mine, Policy=policy({**allow('s3:*', f'arn:aws:s3:::{theirs}'), 'Principal': '*'}))
    refused('AccessDenied', s3.get_object, Bucket=mine, Key='dir/a.txt')
    root.put_bucket_policy(Bucket=mine, Policy=policy({**allow('s3:GetObject', f'arn:aws:s3:::{mine}/*'), 'Principal': {'AWS': f'arn:aws:iam::{ACCOUNT}:user/{name}'}}))
    s3.get_object(Bucket=mine, Key='dir/a.txt')
    refused('AccessDenied', s3.put_object, Bucket=mine, Key='dir/a.txt', Body=b'')
    root.put_bucket_policy(Bucket=mine, Policy=policy({**deny('s3:*', [f'arn:aws:s3:::{mine}', f'arn:aws:s3:::{mine}/*']), 'Principal': '*'}))
    iam.attach_user_policy(UserName=name, PolicyArn='arn:aws:iam::aws:policy/AdministratorAccess')
    assert 'explicit deny in a resource-based policy' in refused('AccessDenied', s3.get_object, Bucket=mine, Key='dir/a.txt')
    refused('AccessDenied', root.get_object, Bucket=mine, Key='dir/a.txt')
    root.delete_bucket_policy(Bucket=mine)
    root.get_object(Bucket=mine, Key='dir/a.txt')
    s3.get_object(Bucket=mine, Key='dir/a.txt')


# ---- sessions ----

def test_assume_role(tandem, iam, buckets):
    mine, theirs = buckets
    name, key = user_with(iam, allow(['sts:AssumeRole', 'sts:TagSession']))
    role, arn = role_with(iam, [{'Effect': 'Allow', 'Principal': {'AWS': ACCOUNT}, 'Action': ['sts:AssumeRole', 'sts:TagSession'],
                                 'Condition': {'StringEquals': {'sts:ExternalId': 'x-7'}}}], allow('s3:*'))
    sts = as_(tandem, 'sts', key)
    said = refused('AccessDenied', sts.assume_role, RoleArn=arn, RoleSessionName='once', status=403)
    assert said.startswith(f'User: arn:aws:iam::{ACCOUNT}:user/{name} is not authorized to perform: sts:AssumeRole on resource: {arn}')
    refused('AccessDenied', sts.assume_role, RoleArn=arn + 'x', RoleSessionName='once', ExternalId='x-7')
    refused('ValidationError', sts.assume_role, RoleArn=arn, RoleSessionName='no blanks', ExternalId='x-7')
    refused('ValidationError', sts.assume_role, RoleArn=arn, RoleSessionName='once', ExternalId='x-7', DurationSeconds=7200)
    got = sts.assume_role(RoleArn=arn, RoleSessionName='once', ExternalId='x-7')
    assert got['AssumedRoleUser']['Arn'] == f'arn:aws:sts::{ACCOUNT}:assumed-role/{role}/once'
    who = as_(tandem, 'sts', got['Credentials']).get_caller_identity()
    assert who['Arn'] == got['AssumedRoleUser']['Arn'] and who['UserId'] == got['AssumedRoleUser']['AssumedRoleId'] and who['Account'] == ACCOUNT
    s3 = as_(tandem, 's3', got['Credentials'])
    for bucket in buckets:
        s3.get_object(Bucket=bucket, Key='dir/a.txt')

    less = sts.assume_role(RoleArn=arn, RoleSessionName='less', ExternalId='x-7', Policy=policy(allow('s3:GetObject', f'arn:aws:s3:::{mine}/*')),
                           Tags=[{'Key': 'team', 'Value': 'red'}])
    s3 = as_(tandem, 's3', less['Credentials'])
    s3.get_object(Bucket=mine, Key='dir/a.txt')
    assert 'because no session policy allows' in refused('AccessDenied', s3.get_object, Bucket=theirs, Key='dir/a.txt')
    presigned = s3.generate_presigned_url('get_object', Params={'Bucket': mine, 'Key': 'dir/a.txt'})
    import urllib.request
    assert urllib.request.urlopen(presigned).read() == b'in ' + mine.encode()

    iam.delete_user_policy(UserName=name, PolicyName='p')
    refused('AccessDenied', sts.assume_role, RoleArn=arn, RoleSessionName='once', ExternalId='x-7')
    iam.update_assume_role_policy(RoleName=role, PolicyDocument=policy({'Effect': 'Allow', 'Principal': {'AWS': f'arn:aws:iam::{ACCOUNT}:user/{name}'}, 'Action': 'sts:AssumeRole'}))
    sts.assume_role(RoleArn=arn, RoleSessionName='named')                    # the trust names him: that is enough

    spoiled = dict(got['Credentials'], SessionToken=got['Credentials']['SessionToken'][:-4] + 'AAAA')
    refused('InvalidToken', as_(tandem, 's3', spoiled).get_object, Bucket=mine, Key='dir/a.txt', status=400)
    refused('InvalidClientTokenId', as_(tandem, 'sts', spoiled).get_caller_identity, status=403)
    refused('InvalidAccessKeyId', as_(tandem, 's3', dict(got['Credentials'], SessionToken=None)).get_object, Bucket=mine, Key='dir/a.txt')
    iam.delete_role_policy(RoleName=role, PolicyName='p')
    refused('AccessDenied', as_(tandem, 's3', got['Credentials']).get_object, Bucket=mine, Key='dir/a.txt')
    iam.delete_role(RoleName=role)                                            # a session ends with its role
    refused('InvalidClientTokenId', as_(tandem, 'sts', got['Credentials']).get_caller_identity)


def seal(tandem, claims):
    """A session token as the gateway makes them: with the key that lies in the state folder, and nowhere else."""
    import base64, os
    from ctypes import CDLL, c_void_p, c_int, create_string_buffer, byref
    lib = CDLL('libcrypto.so.3')
    lib.EVP_CIPHER_CTX_new.restype = lib.EVP_aes_256_gcm.restype = c_void_p
    key, nonce, text = open(os.path.join(tandem.state, 'iam', 'session.key'), 'rb').read(), os.urandom(12), json.dumps(claims).encode()
    c, out, n = c_void_p(lib.EVP_CIPHER_CTX_new()), create_string_buffer(len(text) + 16), c_int()
    assert lib.EVP_EncryptInit_ex(c, c_void_p(lib.EVP_aes_256_gcm()), None, key, nonce) == 1
    assert lib.EVP_EncryptUpdate(c, None, byref(n), b'\x01', 1) == 1 and lib.EVP_EncryptUpdate(c, out, byref(n), text, len(text)) == 1
    tag = create_string_buffer(16)
    assert lib.EVP_EncryptFinal_ex(c, create_string_buffer(16), byref(n)) == 1 and lib.EVP_CIPHER_CTX_ctrl(c, 0x10, 16, tag) == 1
    return base64.urlsafe_b64encode(b'\x01' + nonce + out.raw[:len(text)] + tag.raw).decode().rstrip('=')


def test_sessions_end(tandem, iam, buckets):
    import os
    assert os.stat(os.path.join(tandem.state, 'iam', 'session.key')).st_mode & 0o777 == 0o600
    now = int(time.time())
    for until, code in ((now + 60, None), (now - 1, 'ExpiredToken')):
        key = {'AccessKeyId': 'ASIAEXAMPLE', 'SecretAccessKey': 'secret'}
        key['SessionToken'] = seal(tandem, {'key': 'ASIAEXAMPLE', 'secret': 'secret', 'since': now - 60, 'until': until})
        if code:
            refused(code, as_(tandem, 'sts', key).get_caller_identity, status=403)
            refused(code, as_(tandem, 's3', key).list_buckets, status=400)
            refused('ExpiredTokenException', as_(tandem, 'lambda', key).list_functions)
        else:
            assert as_(tandem, 'sts', key).get_caller_identity()['Arn'] == f'arn:aws:iam::{ACCOUNT}:root'


def test_session_token(tandem, iam, buckets):
    name, key = user_with(iam, allow('s3:GetObject', f'arn:aws:s3:::{buckets[0]}/*'))
    got = as_(tandem, 'sts', key).get_session_token()['Credentials']
    assert as_(tandem, 'sts', got).get_caller_identity()['Arn'] == f'arn:aws:iam::{ACCOUNT}:user/{name}'
    as_(tandem, 's3', got).get_object(Bucket=buckets[0], Key='dir/a.txt')
    refused('AccessDenied', as_(tandem, 's3', got).get_object, Bucket=buckets[1], Key='dir/a.txt')
    refused('AccessDenied', as_(tandem, 'sts', got).get_session_token)
    refused('NotImplemented', tandem.boto('sts').decode_authorization_message, EncodedMessage='x')


def test_web_identity(tandem, iam, buckets):
    import boto3, botocore, botocore.config
    account = new('sa')
    tandem.kubectl('create', 'serviceaccount', account)
    token = tandem.kubectl('create', 'token', account, '--audience', 'sts.amazonaws.com').stdout.strip()
    host = 'kubernetes.default.svc.cluster.local'
    trust = [{'Effect': 'Allow', 'Principal': {'Federated': f'arn:aws:iam::{ACCOUNT}:oidc-provider/{host}'}, 'Action': 'sts:AssumeRoleWithWebIdentity',
              'Condition': {'StringEquals': {f'{host}:sub': f'system:serviceaccount:default:{account}'}}}]
    _, arn = role_with(iam, trust, allow('s3:GetObject', f'arn:aws:s3:::{buckets[0]}/*'))
    sts = boto3.client('sts', endpoint_url=tandem.status['aws'], region_name='us-east-1', config=botocore.config.Config(signature_version=botocore.UNSIGNED))
    got = sts.assume_role_with_web_identity(RoleArn=arn, RoleSessionName='pod', WebIdentityToken=token)
    assert got['SubjectFromWebIdentityToken'] == f'system:serviceaccount:default:{account}'
    as_(tandem, 's3', got['Credentials']).get_object(Bucket=buckets[0], Key='dir/a.txt')
    refused('AccessDenied', as_(tandem, 's3', got['Credentials']).get_object, Bucket=buckets[1], Key='dir/a.txt')
    tandem.kubectl('create', 'serviceaccount', account + '-2')
    other = tandem.kubectl('create', 'token', account + '-2', '--audience', 'sts.amazonaws.com').stdout.strip()
    refused('AccessDenied', sts.assume_role_with_web_identity, RoleArn=arn, RoleSessionName='pod', WebIdentityToken=other)
    plain = tandem.kubectl('create', 'token', account).stdout.strip()
    refused('InvalidIdentityToken', sts.assume_role_with_web_identity, RoleArn=arn, RoleSessionName='pod', WebIdentityToken=plain)
    refused('InvalidIdentityToken', sts.assume_role_with_web_identity, RoleArn=arn, RoleSessionName='pod', WebIdentityToken=token[:-9] + 'AAAAAAAAA')
    tandem.kubectl('delete', 'serviceaccount', account)
    refused('InvalidIdentityToken', sts.assume_role_with_web_identity, RoleArn=arn, RoleSessionName='pod', WebIdentityToken=token)
    refused('MissingAuthenticationToken', sts.get_caller_identity)


# ---- functions ----

HANDLER = '''
import os, json, urllib.request
def handler(event, context):
    if event.get('do') == 'keys':
        return {k: os.environ.get(k, '') for k in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN')}
    return {'caller': event.get('requestContext', {}).get('authorizer', {}).get('iam', {}).get('userArn')}
'''


def deploy(tandem, role, name=None, **more):
    import io, zipfile
    out, name = io.BytesIO(), name or new('fn')
    with zipfile.ZipFile(out, 'w') as z:
        z.writestr('app.py', HANDLER)
    fn = more.pop('client', None) or tandem.boto('lambda')
    fn.create_function(FunctionName=name, Runtime='python3.11', Role=role, Handler='app.handler', Code={'ZipFile': out.getvalue()}, Timeout=10, **more)
    tandem.boto('lambda').get_waiter('function_active_v2').wait(FunctionName=name)
    return name


def keys_of(tandem, name):
    got = json.loads(tandem.boto('lambda').invoke(FunctionName=name, Payload=json.dumps({'do': 'keys'}))['Payload'].read())
    return {'AccessKeyId': got['AWS_ACCESS_KEY_ID'], 'SecretAccessKey': got['AWS_SECRET_ACCESS_KEY'], 'SessionToken': got['AWS_SESSION_TOKEN'] or None}


def test_a_function_has_its_roles_access(tandem, iam, buckets):
    mine, theirs = buckets
    role, arn = role_with(iam, TRUST['Statement'], allow('s3:GetObject', f'arn:aws:s3:::{mine}/*'))
    name = deploy(tandem, arn)
    key = keys_of(tandem, name)
    assert as_(tandem, 'sts', key).get_caller_identity()['Arn'] == f'arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{name}'
    s3 = as_(tandem, 's3', key)
    assert s3.get_object(Bucket=mine, Key='dir/a.txt')['Body'].read() == b'in ' + mine.encode()
    assert f'assumed-role/{role}/{name}' in refused('AccessDenied', s3.get_object, Bucket=theirs, Key='dir/a.txt')
    refused('AccessDenied', s3.put_object, Bucket=mine, Key='x', Body=b'')
    refused('AccessDeniedException', as_(tandem, 'lambda', key).invoke, FunctionName=name)


def test_a_role_that_comes_later_counts(tandem, iam, buckets):
    role = new('late')
    name = deploy(tandem, f'arn:aws:iam::{ACCOUNT}:role/{role}')
    before = keys_of(tandem, name)
    assert before['SessionToken'] is None and as_(tandem, 'sts', before).get_caller_identity()['Arn'].endswith(':root')
    role_with(iam, TRUST['Statement'], name=role)
    from conftest import eventually
    eventually(lambda: keys_of(tandem, name)['SessionToken'])
    refused('AccessDenied', as_(tandem, 's3', keys_of(tandem, name)).list_buckets)


def test_roles_are_passed(tandem, iam):
    _, trusted = role_with(iam, TRUST['Statement'])
    _, foreign = role_with(iam, [{'Effect': 'Allow', 'Principal': {'Service': 'ec2.amazonaws.com'}, 'Action': 'sts:AssumeRole'}])
    said = refused('InvalidParameterValueException', deploy, tandem, foreign, status=400)
    assert said == 'The role defined for the function cannot be assumed by Lambda.'
    name, key = user_with(iam, allow('lambda:*'))
    client = as_(tandem, 'lambda', key)
    said = refused('AccessDeniedException', deploy, tandem, trusted, client=client, status=403)
    assert said.startswith(f'User: arn:aws:iam::{ACCOUNT}:user/{name} is not authorized to perform: iam:PassRole on resource: {trusted} because no identity-based policy allows')
    iam.put_user_policy(UserName=name, PolicyName='pass', PolicyDocument=policy(allow('iam:PassRole', trusted, Condition={'StringEquals': {'iam:PassedToService': 'lambda.amazonaws.com'}})))
    function = deploy(tandem, trusted, client=client)
    refused('InvalidParameterValueException', tandem.boto('lambda').update_function_configuration, FunctionName=function, Role=foreign)


def test_a_functions_own_policy(tandem, iam):
    import urllib.error, urllib.request
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    root = tandem.boto('lambda')
    name = deploy(tandem, f'arn:aws:iam::{ACCOUNT}:role/any')
    user, key = user_with(iam)
    fn, me = as_(tandem, 'lambda', key), f'arn:aws:iam::{ACCOUNT}:user/{user}'
    refused('AccessDeniedException', fn.invoke, FunctionName=name, status=403)
    refused('InvalidParameterValueException', root.add_permission, FunctionName=name, StatementId='s', Action='lambda:InvokeFunction', Principal='nobody-at-all')
    root.add_permission(FunctionName=name, StatementId='s', Action='lambda:InvokeFunction', Principal=me)
    assert fn.invoke(FunctionName=name, Payload=b'{}')['StatusCode'] == 200
    refused('AccessDeniedException', fn.get_function, FunctionName=name)
    root.remove_permission(FunctionName=name, StatementId='s')
    refused('AccessDeniedException', fn.invoke, FunctionName=name)

    url = root.create_function_url_config(FunctionName=name, AuthType='AWS_IAM')['FunctionUrl']
    def get(key=None):
        request = AWSRequest('GET', url)
        if key:
            SigV4Auth(Credentials(key['AccessKeyId'], key['SecretAccessKey'], key.get('SessionToken')), 'lambda', 'us-east-1').add_auth(request)
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=dict(request.headers))) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()
    assert get()[0] == 403
    assert get(tandem.key) == (200, {'caller': f'arn:aws:iam::{ACCOUNT}:root'})
    status, text = get(key)
    assert status == 403 and 'lambda:InvokeFunctionUrl' in text
    root.add_permission(FunctionName=name, StatementId='u', Action='lambda:InvokeFunctionUrl', Principal=me, FunctionUrlAuthType='AWS_IAM')
    assert get(key) == (200, {'caller': me})
    iam.put_user_policy(UserName=user, PolicyName='no', PolicyDocument=policy(deny('lambda:InvokeFunctionUrl')))
    assert get(key)[0] == 403


def test_other_services_ask_too(tandem, iam):
    name, key = user_with(iam, allow('logs:DescribeLogGroups'), allow('ssm:GetParameter', f'arn:aws:ssm:us-east-1:{ACCOUNT}:parameter/app/*'))
    as_(tandem, 'logs', key).describe_log_groups()
    refused('AccessDeniedException', as_(tandem, 'logs', key).create_log_group, logGroupName='/x')
    refused('AccessDeniedException', as_(tandem, 'cloudwatch', key).list_metrics)
    iam.put_user_policy(UserName=name, PolicyName='metrics', PolicyDocument=policy(allow('cloudwatch:ListMetrics')))
    as_(tandem, 'cloudwatch', key).list_metrics()
    tandem.boto('ssm').put_parameter(Name='/app/colour', Value='blue', Type='String')
    tandem.boto('ssm').put_parameter(Name='/other', Value='blue', Type='String')
    assert as_(tandem, 'ssm', key).get_parameter(Name='/app/colour')['Parameter']['Value'] == 'blue'
    refused('AccessDeniedException', as_(tandem, 'ssm', key).get_parameter, Name='/other')
    refused('AccessDeniedException', as_(tandem, 'ssm', key).put_parameter, Name='/app/colour', Value='red', Type='String', Overwrite=True)


def detour(client, change):
    """What boto3 signs and sends is changed before it signs."""
    client.meta.events.register('before-sign', lambda request, **kw: change(request))
    return client


def test_what_is_asked_for_is_what_is_done(tandem, iam):
    """Whether he may is asked for the operation that runs and the thing that it runs on, however the request says them."""
    root = tandem.boto('ssm')
    for name in '/detour/mine', '/detour/secret':
        root.put_parameter(Name=name, Value='hush', Type='SecureString', Overwrite=True)
    arn = f'arn:aws:ssm:us-east-1:{ACCOUNT}:parameter/detour/'
    name, key = user_with(iam, allow('ssm:DescribeParameters'), allow(['ssm:DeleteParameter', 'ssm:AddTagsToResource'], 'arn:aws:ssm:*:*:parameter/detour/mine*'))

    def path(request):
        request.url = tandem.status['aws'] + '/service/x/operation/DescribeParameters'
    refused('AccessDeniedException', detour(as_(tandem, 'ssm', key), path).get_parameter, Name='/detour/secret', WithDecryption=True)
    ssm = as_(tandem, 'ssm', key)
    refused('AccessDeniedException', ssm.delete_parameter, Name='arn:aws:ssm:x:parameter/detour/secret:parameter/detour/mine')

    def more(request):
        request.data = json.dumps({**json.loads(request.data), 'Name': '/detour/mine'}).encode()
    refused('AccessDeniedException', detour(as_(tandem, 'ssm', key), more).add_tags_to_resource, ResourceType='Parameter', ResourceId='/detour/secret', Tags=[{'Key': 'a', 'Value': 'b'}])
    ssm.add_tags_to_resource(ResourceType='Parameter', ResourceId='/detour/mine', Tags=[{'Key': 'a', 'Value': 'b'}])
    ssm.delete_parameter(Name=f'{arn}mine')

    _, key = user_with(iam, allow('ssm:GetParameter'), deny('ssm:*', f'{arn}secret'))
    ssm = as_(tandem, 'ssm', key)
    for asked in '/detour/secret', '/detour/secret:1', f'{arn}secret', f'{arn}secret:1', arn.replace('us-east-1', 'us-west-2') + 'secret':
        refused('AccessDeniedException', ssm.get_parameter, Name=asked)

    tandem.boto('logs').create_log_group(logGroupName='/detour/secret')
    group = f'arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/detour/secret'
    _, key = user_with(iam, allow('logs:*'), deny('logs:FilterLogEvents', group + ':*'))
    for asked in group, group + ':*', group.replace('us-east-1', 'us-west-2'), '/detour/secret':
        refused('AccessDeniedException', as_(tandem, 'logs', key).filter_log_events, logGroupIdentifier=asked)

    tandem.boto('events').put_rule(Name='detour-secret', ScheduleExpression='rate(1 day)')
    _, key = user_with(iam, allow('events:*', 'arn:aws:events:*:*:rule/detour-mine*'))
    refused('AccessDeniedException', as_(tandem, 'events', key).delete_rule, Name='detour-mine/detour-secret')
    refused('AccessDeniedException', as_(tandem, 'events', key).untag_resource, ResourceARN=f'arn:aws:events:us-east-1:{ACCOUNT}:rule/detour-mine/detour-secret', TagKeys=['a'])


def test_every_sub_resource_of_a_request_counts(tandem, iam, buckets):
    mine, _ = buckets
    _, key = user_with(iam, allow(['s3:PutBucketAcl', 's3:CreateBucket', 's3:GetBucketLocation', 's3:DeleteBucket']))
    root = tandem.boto('s3')

    def with_(sub):
        def change(request):
            request.url += f'&{sub}'
        return detour(as_(tandem, 's3', key), change)
    everybody = policy({**allow('s3:*', f'arn:aws:s3:::{mine}/*'), 'Principal': '*'})
    for sub in 'acl', 'location':
        refused('AccessDenied', with_(sub).put_bucket_policy, Bucket=mine, Policy=everybody)
    refused('NoSuchBucketPolicy', root.get_bucket_policy, Bucket=mine)
    refused('AccessDenied', with_('location').get_bucket_policy, Bucket=mine)
    refused('AccessDenied', with_('location').get_bucket_notification_configuration, Bucket=mine)
    as_(tandem, 's3', key).get_bucket_location(Bucket=mine)


def test_nothing_is_put_into_what_cloudformation_asks(tandem, iam, buckets):
    mine, _ = buckets
    tandem.boto('s3').put_object(Bucket=mine, Key='t.json', Body=b'{"Resources":{"T":{"Type":"AWS::S3::Bucket"}}}')
    owner = tandem.boto('s3')._request_signer._credentials.access_key
    _, key = user_with(iam, allow('cloudformation:ValidateTemplate'))
    client, url = as_(tandem, 'cloudformation', key), f'http://localhost/{mine}/t.json'
    refused('ValidationError', client.validate_template, TemplateURL=url)
    refused('ValidationError', client.validate_template, TemplateURL=f'{url} HTTP/1.1\r\nx-tandem-service: s3\r\nx-tandem-caller: {owner}|0|\r\nx-rest: ')
    tandem.boto('cloudformation').validate_template(TemplateURL=url)


def test_a_key_id_is_no_proof_on_the_doors_own_socket(tandem):
    import os, socket
    owner = tandem.boto('s3')._request_signer._credentials.access_key
    for caller in (owner, f'{owner}|{int(time.time())}|', '', 'A' * 100):
        s = socket.socket(socket.AF_UNIX)
        s.connect(os.path.join(tandem.state, 'run', 'aws.sock'))
        s.sendall(f'GET / HTTP/1.1\r\nHost: x\r\nx-tandem-service: s3\r\nx-tandem-caller: {caller}\r\nConnection: close\r\n\r\n'.encode())
        assert s.makefile().readline().split()[1] in ('400', '403'), caller
        s.close()


def test_an_objects_name_is_nobodys_name(tandem, iam):
    """What is named by a hash in Kubernetes is found here by its own name only."""
    team, target = new('team'), {'Arn': f'arn:aws:lambda:us-east-1:{ACCOUNT}:function:any', 'RoleArn': f'arn:aws:iam::{ACCOUNT}:role/any'}
    scheduler, events = tandem.boto('scheduler'), tandem.boto('events')

    def names(kind):
        return [o['metadata']['name'] for o in tandem.get(kind)['items'] if o['metadata']['name'].startswith(team)]
    scheduler.create_schedule_group(Name=team)
    how = dict(ScheduleExpression='rate(1 day)', FlexibleTimeWindow={'Mode': 'OFF'}, Target=target)
    scheduler.create_schedule(GroupName=team, Name='secret', **how)
    name, = names('schedules')
    for call in scheduler.get_schedule, scheduler.delete_schedule, lambda Name: scheduler.update_schedule(Name=Name, **how):
        refused('ResourceNotFoundException', call, Name=name)
    scheduler.get_schedule(GroupName=team, Name='secret')
    scheduler.delete_schedule_group(Name=team)

    rule = team + '.secret'
    events.put_rule(Name=rule, ScheduleExpression='rate(1 day)')
    name, = names('eventrules')
    events.delete_rule(Name=name)                    # what is not there is deleted
    for call in events.describe_rule, events.disable_rule, lambda Name: events.list_targets_by_rule(Rule=Name):
        refused('ResourceNotFoundException', call, Name=name)
    events.delete_rule(Name=rule)

    function = team + '_secret'
    deploy(tandem, f'arn:aws:iam::{ACCOUNT}:role/any', name=function)
    name, = names('functions')
    for call in 'invoke', 'get_function', 'delete_function', 'get_function_configuration':
        refused('ResourceNotFoundException', getattr(tandem.boto('lambda'), call), FunctionName=name)
    tandem.boto('lambda').delete_function(FunctionName=function)


def test_a_layers_version_by_any_name(tandem, iam):
    import io, zipfile
    data = io.BytesIO()
    with zipfile.ZipFile(data, 'w') as z:
        z.writestr('python/a.py', '')
    name = new('layer')
    made = tandem.boto('lambda').publish_layer_version(LayerName=name, Content={'ZipFile': data.getvalue()})
    _, key = user_with(iam, allow('lambda:GetLayerVersion'), deny('lambda:*', made['LayerVersionArn']))
    client = as_(tandem, 'lambda', key)
    for asked in name, made['LayerArn'], made['LayerArn'].replace('us-east-1', 'us-west-2'):
        refused('AccessDeniedException', client.get_layer_version, LayerName=asked, VersionNumber=1)

    def zero(request):
        request.url = request.url.replace('/versions/1', '/versions/01')
    refused('AccessDeniedException', detour(as_(tandem, 'lambda', key), zero).get_layer_version, LayerName=name, VersionNumber=1)


def test_a_policy_is_made_under_its_own_name(tandem, iam):
    _, key = user_with(iam, allow('iam:CreatePolicy', f'arn:aws:iam::{ACCOUNT}:policy/team-*'))

    def more(request):
        request.data = {**request.data, 'PolicyArn': f'arn:aws:iam::{ACCOUNT}:policy/team-x'}
    refused('AccessDenied', detour(as_(tandem, 'iam', key), more).create_policy, PolicyName=new('other'), PolicyDocument=policy(allow('s3:*')))


# ---- docs/iam.md ----

def blocks(language):
    import os, re
    from conftest import TOP
    return re.findall(r'```' + language + r'\n(.*?)```', open(os.path.join(TOP, 'docs', 'iam.md')).read(), re.S)


def test_the_page_says_what_happens(tandem, iam):
    import os, re, subprocess, sys
    from conftest import TOP
    tandem.boto('s3')
    env = {**os.environ, 'AWS_ENDPOINT_URL': tandem.status['aws'], 'AWS_DEFAULT_REGION': 'us-east-1', 'AWS_ACCESS_KEY_ID': tandem.key['AccessKeyId'],
           'AWS_SECRET_ACCESS_KEY': tandem.key['SecretAccessKey'], 'AWS_CONFIG_FILE': '/dev/null', 'AWS_SHARED_CREDENTIALS_FILE': '/dev/null'}
    done = subprocess.run([sys.executable, '-c', blocks('python')[0]], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 0, done.stderr
    said = re.search(r'It prints\n\n(.*?)\n\n', open(os.path.join(TOP, 'docs', 'iam.md')).read(), re.S).group(1)
    assert done.stdout.splitlines() == [line.strip() for line in said.splitlines()]


def test_roles_by_kubectl(tandem, iam, buckets):
    name = new('made')
    tandem.kubectl('apply', '-f', '-', text=blocks('yaml')[0].replace('name: reader', 'name: ' + name).replace('open/*', buckets[0] + '/*'))
    from conftest import eventually
    role = eventually(lambda: iam.get_role(RoleName=name)['Role'])
    assert role['AssumeRolePolicyDocument'] == TRUST and role['RoleId'].startswith('AROA')
    s3 = as_(tandem, 's3', keys_of(tandem, deploy(tandem, role['Arn'])))
    s3.get_object(Bucket=buckets[0], Key='dir/a.txt')
    refused('AccessDenied', s3.get_object, Bucket=buckets[1], Key='dir/a.txt')
    tandem.kubectl('patch', 'iamrole', name, '--type', 'merge', '-p', '{"spec":{"policies":[{"name":"reads","document":{"Statement":"nonsense"}}]}}')
    eventually(lambda: 'explicit deny' in refused('AccessDenied', s3.get_object, Bucket=buckets[0], Key='dir/a.txt'))


def test_roles_are_passed_to_other_services(tandem, iam):
    name, key = user_with(iam, allow(['cloudformation:*', 'events:*', 'scheduler:*', 'logs:StartQuery']), deny('logs:StartQuery', f'arn:aws:logs:*:*:log-group:/secret:*'))
    _, arn = role_with(iam, [{'Effect': 'Allow', 'Principal': {'Service': ['cloudformation.amazonaws.com', 'scheduler.amazonaws.com']}, 'Action': 'sts:AssumeRole'}], allow('*'))
    said = refused('AccessDenied', as_(tandem, 'cloudformation', key).create_stack, StackName=new('s'), TemplateBody='{"Resources":{}}', RoleARN=arn)
    assert 'iam:PassRole' in said
    target = {'Arn': f'arn:aws:lambda:us-east-1:{ACCOUNT}:function:any', 'RoleArn': arn}
    said = refused('AccessDeniedException', as_(tandem, 'scheduler', key).create_schedule, Name=new('s'), ScheduleExpression='rate(1 day)', FlexibleTimeWindow={'Mode': 'OFF'}, Target=target)
    assert 'iam:PassRole' in said
    logs = as_(tandem, 'logs', key)                  # what is named beside the allowed one counts, too
    refused('AccessDeniedException', logs.start_query, logGroupNames=['/open', '/secret'], startTime=0, endTime=1, queryString='fields @message')


def test_a_function_may_have_the_layers_that_its_maker_may_have(tandem, iam):
    from test_lambda import zipped
    root, name = tandem.boto('lambda'), new('layered')
    layer = root.publish_layer_version(LayerName=name, Content={'ZipFile': zipped('x = 1', 'python/x.py')})['LayerVersionArn']
    _, arn = role_with(iam, TRUST['Statement'])
    may = [allow(['lambda:CreateFunction', 'lambda:UpdateFunctionConfiguration', 'lambda:GetFunction']), allow('iam:PassRole')]
    args = dict(FunctionName=name, Runtime='python3.11', Role=arn, Handler='app.handler', Code={'ZipFile': zipped()}, Layers=[layer])
    _, key = user_with(iam, *may)
    assert 'lambda:GetLayerVersion on resource: ' + layer in refused('AccessDeniedException', as_(tandem, 'lambda', key).create_function, **args)
    other, key = user_with(iam, *may, allow('lambda:GetLayerVersion', layer))
    fn = as_(tandem, 'lambda', key)
    assert fn.create_function(**args)['Layers'][0]['Arn'] == layer
    iam.put_user_policy(UserName=other, PolicyName='p', PolicyDocument=policy(*may))
    fn.get_waiter('function_updated_v2')
    refused('AccessDeniedException', fn.update_function_configuration, FunctionName=name, Layers=[layer])
    root.delete_function(FunctionName=name)


def test_a_stranger_may_send_little(tandem):
    """Nothing is known of who sends a request without a signature: its body is not collected beyond what STS can need."""
    import urllib.error, urllib.request
    for size, status in ((100, 400), (200_000, 413)):
        body = b'Action=AssumeRoleWithWebIdentity&Version=2011-06-15&WebIdentityToken=' + b'x' * size
        with pytest.raises(urllib.error.HTTPError) as e:
            urllib.request.urlopen(urllib.request.Request(tandem.status['aws'] + '/', body, {'content-type': 'application/x-www-form-urlencoded'}))
        assert e.value.code == status


def test_tags_have_limits(tandem):
    """50 of a resource, keys of 1 to 128 characters and not aws:, values of 256: wherever there are tags."""
    from test_lambda import create
    name = new('tagged').replace('_', '-')
    lam, ssm, logs, events, scheduler = (tandem.boto(s) for s in ('lambda', 'ssm', 'logs', 'events', 'scheduler'))
    function = create(lam, name)['FunctionArn']
    ssm.put_parameter(Name=name, Value='v', Type='String')
    logs.create_log_group(logGroupName=name)
    rule = events.put_rule(Name=name, ScheduleExpression='rate(1 day)', State='DISABLED')['RuleArn']
    pairs = lambda tags: [{'Key': k, 'Value': v} for k, v in tags.items()]
    ways = [
        ('InvalidParameterValueException', 'InvalidParameterValueException', lambda t: lam.tag_resource(Resource=function, Tags=t)),
        ('InvalidParameterValueException', 'InvalidParameterValueException', lambda t: create(lam, name + 'x', Tags=t)),
        ('TooManyTagsError', 'ValidationException', lambda t: ssm.add_tags_to_resource(ResourceType='Parameter', ResourceId=name, Tags=pairs(t))),
        ('TooManyTagsException', 'InvalidParameterException', lambda t: logs.tag_log_group(logGroupName=name, tags=t)),
        ('LimitExceededException', 'ValidationException', lambda t: events.tag_resource(ResourceARN=rule, Tags=pairs(t))),
        ('ServiceQuotaExceededException', 'ValidationException', lambda t: scheduler.create_schedule_group(Name=name, Tags=pairs(t))),
    ]
    for many, wrong, tag in ways:
        refused(many, tag, {f'k{n}': 'v' for n in range(51)})
        refused(wrong, tag, {'aws:mine': 'v'})
        refused(wrong, tag, {'aws:cloudformation:stack-name': 'v'})     # but for what stacks themselves set
        tag({f'é{n}' + 'k' * 120: 'v' * 256 for n in range(2)})
    refused('InvalidParameterValueException', lam.tag_resource, Resource=function, Tags={f'k{n}': 'v' for n in range(49)})  # with the two there are
    refused('LimitExceededException', events.tag_resource, ResourceARN=rule, Tags=pairs({f'k{n}': 'v' for n in range(49)}))
    for f in (name, name + 'x'):
        lam.delete_function(FunctionName=f)
    ssm.delete_parameter(Name=name)
    logs.delete_log_group(logGroupName=name)
    events.delete_rule(Name=name)
    scheduler.delete_schedule_group(Name=name)


def test_lists_come_in_pages(tandem, iam):
    """An unmodified paginator that asks for one at a time gets each of them once."""
    from test_lambda import create
    name, root = new('paged'), tandem.boto('lambda')
    doc = policy(allow('s3:GetObject'))
    arn = iam.create_policy(PolicyName=name, PolicyDocument=doc)['Policy']['Arn']
    for n in 'abc':
        role_with(iam, TRUST['Statement'], name=name + n)
        iam.create_user(UserName=name + n, Tags=[{'Key': k, 'Value': 'v'} for k in 'zyx'])
        iam.attach_role_policy(RoleName=name + n, PolicyArn=arn)
        iam.attach_user_policy(UserName=name + n, PolicyArn=arn)
        iam.tag_role(RoleName=name + 'a', Tags=[{'Key': n, 'Value': 'v'}])
        iam.tag_policy(PolicyArn=arn, Tags=[{'Key': n, 'Value': 'v'}])
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=doc)
    create(root, name, Publish=True)
    for n in 'abc':
        root.create_alias(FunctionName=name, Name=n, FunctionVersion='1')
        root.put_function_event_invoke_config(FunctionName=name, Qualifier=n, MaximumRetryAttempts=0)
    s3 = tandem.boto('s3')
    s3.create_bucket(Bucket=name)
    uploads = [s3.create_multipart_upload(Bucket=name, Key=n)['UploadId'] for n in 'abb']
    for part in (1, 2, 7):
        s3.upload_part(Bucket=name, Key='a', UploadId=uploads[0], PartNumber=part, Body=b'x')

    def each(client, what, key, field=None, **args):
        pages = list(client.get_paginator(what).paginate(**args, PaginationConfig={'PageSize': 1}))
        assert all(sum(len(p.get(k, [])) for k in key.split()) == 1 for p in pages), (what, pages)
        return [p[k][0][field] if field else k for p in pages for k in key.split() if p.get(k)]
    assert each(iam, 'list_policy_versions', 'Versions', 'VersionId', PolicyArn=arn) == ['v4', 'v3', 'v2', 'v1']
    assert each(iam, 'list_role_tags', 'Tags', 'Key', RoleName=name + 'a') == ['a', 'b', 'c']
    assert each(iam, 'list_user_tags', 'Tags', 'Key', UserName=name + 'a') == ['x', 'y', 'z']
    assert each(iam, 'list_policy_tags', 'Tags', 'Key', PolicyArn=arn) == ['a', 'b', 'c']
    assert each(iam, 'list_entities_for_policy', 'PolicyRoles PolicyUsers', PolicyArn=arn) == ['PolicyRoles'] * 3 + ['PolicyUsers'] * 3
    assert len(set(each(root, 'list_function_event_invoke_configs', 'FunctionEventInvokeConfigs', 'FunctionArn', FunctionName=name))) == 3
    assert each(s3, 'list_parts', 'Parts', 'PartNumber', Bucket=name, Key='a', UploadId=uploads[0]) == [1, 2, 7]
    assert sorted(each(s3, 'list_multipart_uploads', 'Uploads', 'UploadId', Bucket=name)) == sorted(uploads)
    assert name in each(s3, 'list_buckets', 'Buckets', 'Name')
    for id, key in zip(uploads, 'abb'):
        s3.abort_multipart_upload(Bucket=name, Key=key, UploadId=id)
    s3.delete_bucket(Bucket=name)
    root.delete_function(FunctionName=name)
