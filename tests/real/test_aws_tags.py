"""Tags and pages of the small services, and resource types of stacks that are made of them."""
import json

import pytest
from botocore.exceptions import ClientError

from test_cloudformation import FAST, ROLE, cfn, create, name, outputs  # noqa: F401 (cfn and name are fixtures)
from test_lambda import zipped

SIGNER = 'arn:aws:signer:us-east-1:000000000000:/signing-profiles/any/abcdefghij'


def test_tags_of_buckets(tandem):
    s3, bucket = tandem.boto('s3'), 'tagged-bucket'
    s3.create_bucket(Bucket=bucket)
    try:
        with pytest.raises(ClientError, match='NoSuchTagSet'):
            s3.get_bucket_tagging(Bucket=bucket)
        s3.put_bucket_tagging(Bucket=bucket, Tagging={'TagSet': [{'Key': 'a', 'Value': '<1>'}, {'Key': 'b', 'Value': ''}]})
        assert s3.get_bucket_tagging(Bucket=bucket)['TagSet'] == [{'Key': 'a', 'Value': '<1>'}, {'Key': 'b', 'Value': ''}]
        s3.put_bucket_tagging(Bucket=bucket, Tagging={'TagSet': [{'Key': 'b', 'Value': '2'}]})
        assert s3.get_bucket_tagging(Bucket=bucket)['TagSet'] == [{'Key': 'b', 'Value': '2'}]
        for bad in ([{'Key': 'x', 'Value': '1'}] * 2, [{'Key': f'k{i}', 'Value': ''} for i in range(51)], [{'Key': 'aws:x', 'Value': ''}]):
            with pytest.raises(ClientError):
                s3.put_bucket_tagging(Bucket=bucket, Tagging={'TagSet': bad})
        s3.delete_bucket_tagging(Bucket=bucket)
        with pytest.raises(ClientError, match='NoSuchTagSet'):
            s3.get_bucket_tagging(Bucket=bucket)
    finally:
        s3.delete_bucket(Bucket=bucket)


def test_each_object_is_its_one_version(tandem):
    """What empties a bucket before it goes (CDK's autoDeleteObjects, Terraform's force_destroy) does it by versions."""
    s3, bucket = tandem.boto('s3'), 'versions-of-one'
    s3.create_bucket(Bucket=bucket)
    for i in range(5):
        s3.put_object(Bucket=bucket, Key=f'k/{i} <', Body=b'x')
    pages = s3.get_paginator('list_object_versions').paginate(Bucket=bucket, PaginationConfig={'PageSize': 2})
    found = [(v['Key'], v['VersionId'], v['IsLatest'], v['Size']) for p in pages for v in p.get('Versions', [])]
    assert found == [(f'k/{i} <', 'null', True, 1) for i in range(5)]
    s3.delete_objects(Bucket=bucket, Delete={'Objects': [{'Key': k, 'VersionId': v} for k, v, *_ in found]})
    s3.delete_bucket(Bucket=bucket)


def test_pages_of_targets(tandem):
    events = tandem.boto('events')
    events.put_rule(Name='pages-of-targets', ScheduleExpression='rate(1 hour)', State='DISABLED')
    ids = ['c', 'a', 'b']
    tandem.boto('lambda').create_function(FunctionName='paged-target', Runtime='python3.11', Role=ROLE, Handler='app.handler', Code={'ZipFile': zipped()})
    try:
        arn = 'arn:aws:lambda:us-east-1:000000000000:function:paged-target'
        events.put_targets(Rule='pages-of-targets', Targets=[{'Id': i, 'Arn': arn} for i in ids])
        pages = list(events.get_paginator('list_targets_by_rule').paginate(Rule='pages-of-targets', PaginationConfig={'PageSize': 2}))
        assert [[t['Id'] for t in p['Targets']] for p in pages] == [['c', 'a'], ['b']]
    finally:
        events.remove_targets(Rule='pages-of-targets', Ids=ids)
        events.delete_rule(Name='pages-of-targets')
        tandem.boto('lambda').delete_function(FunctionName='paged-target')


def test_tags_of_schedule_groups(tandem):
    scheduler = tandem.boto('scheduler')
    arn = scheduler.create_schedule_group(Name='tagged-group', Tags=[{'Key': 'a', 'Value': '1'}])['ScheduleGroupArn']
    try:
        scheduler.tag_resource(ResourceArn=arn, Tags=[{'Key': 'b', 'Value': '2'}, {'Key': 'a', 'Value': '3'}])
        assert {t['Key']: t['Value'] for t in scheduler.list_tags_for_resource(ResourceArn=arn)['Tags']} == {'a': '3', 'b': '2'}
        scheduler.untag_resource(ResourceArn=arn, TagKeys=['a'])
        assert scheduler.list_tags_for_resource(ResourceArn=arn)['Tags'] == [{'Key': 'b', 'Value': '2'}]
        with pytest.raises(scheduler.exceptions.ServiceQuotaExceededException):
            scheduler.tag_resource(ResourceArn=arn, Tags=[{'Key': f'k{i}', 'Value': 'v'} for i in range(50)])
        with pytest.raises(scheduler.exceptions.ResourceNotFoundException):
            scheduler.list_tags_for_resource(ResourceArn=arn + 'x')
    finally:
        scheduler.delete_schedule_group(Name='tagged-group')


def test_a_log_group_has_fifty_tags_in_all(tandem):
    logs, group = tandem.boto('logs'), '/tagged/group'
    logs.create_log_group(logGroupName=group)
    try:
        arn = 'arn:aws:logs:us-east-1:000000000000:log-group:' + group
        logs.tag_resource(resourceArn=arn, tags={f'a{i}': '' for i in range(30)})
        with pytest.raises(logs.exceptions.TooManyTagsException):
            logs.tag_resource(resourceArn=arn, tags={f'b{i}': '' for i in range(30)})
        logs.tag_resource(resourceArn=arn, tags={f'a{i}': 'again' for i in range(30)})
        assert set(logs.list_tags_for_resource(resourceArn=arn)['tags'].values()) == {'again'}
    finally:
        logs.delete_log_group(logGroupName=group)


def test_types_of_stacks(tandem, cfn, name):
    template = {'Resources': {
        'Signing': {'Type': 'AWS::Lambda::CodeSigningConfig', 'Properties': {'AllowedPublishers': {'SigningProfileVersionArns': [SIGNER]}, 'Description': 'one'}},
        'Signed': {'Type': 'AWS::Lambda::Function', 'Properties': {
            'Runtime': 'python3.11', 'Handler': 'index.handler', 'Role': ROLE, 'CodeSigningConfigArn': {'Ref': 'Signing'},
            'Code': {'ZipFile': 'def handler(e, c): return 1'}}},
        'Group': {'Type': 'AWS::Logs::LogGroup'},
        'Stream': {'Type': 'AWS::Logs::LogStream', 'Properties': {'LogGroupName': {'Ref': 'Group'}, 'LogStreamName': 'one'}},
        'Bucket': {'Type': 'AWS::S3::Bucket', 'Properties': {'Tags': [{'Key': 'k', 'Value': 'v'}]}}},
        'Outputs': {k: {'Value': {'Ref': k}} for k in ('Signing', 'Signed', 'Group', 'Bucket')}}
    create(cfn, name, template)
    out, fn, logs = outputs(cfn, name), tandem.boto('lambda'), tandem.boto('logs')
    assert fn.get_function_code_signing_config(FunctionName=out['Signed'])['CodeSigningConfigArn'] == out['Signing']
    assert fn.list_tags(Resource=out['Signing'])['Tags']['aws:cloudformation:stack-name'] == name
    assert [s['logStreamName'] for s in logs.describe_log_streams(logGroupName=out['Group'])['logStreams']] == ['one']
    assert tandem.boto('s3').get_bucket_tagging(Bucket=out['Bucket'])['TagSet'] == [{'Key': 'k', 'Value': 'v'}]
    template['Resources']['Signing']['Properties']['Description'] = 'two'
    del template['Resources']['Signed']['Properties']['CodeSigningConfigArn']
    cfn.update_stack(StackName=name, TemplateBody=json.dumps(template))
    cfn.get_waiter('stack_update_complete').wait(StackName=name, WaiterConfig=FAST)
    assert fn.get_code_signing_config(CodeSigningConfigArn=out['Signing'])['CodeSigningConfig']['Description'] == 'two'
    assert not fn.get_function_code_signing_config(FunctionName=out['Signed']).get('CodeSigningConfigArn')
